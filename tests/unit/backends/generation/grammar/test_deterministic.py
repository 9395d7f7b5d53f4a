"""Grammars are rewritten into deterministic rules that accept exactly the same texts."""

import itertools
import json
import random
import re

import pytest

from backends.common.errors import InvalidRequest
from backends.generation.grammar.constraints import grammar_from
from backends.generation.grammar.deterministic import deterministic
from backends.generation.grammar.ebnf import any_of, char_class, literal
from tests.unit.backends.generation.grammar.matcher import Matcher

ALPHABETS = {"ascii": "abc", "chinese": "一丁倀倁", "latin": "éèßa", "emoji": "😀😁🙀a"}


def word_list(seed, alphabet):
    """Return some words over the alphabet, and all words that they were drawn from."""
    rng = random.Random(seed)
    if seed % 2:
        words = ["".join(each) for size in range(1, 5) for each in itertools.product(alphabet, repeat=size)]
    else:
        parts = [["".join(rng.choices(alphabet, k=rng.randint(1, 3))) for _ in range(3)] for _ in range(3)]
        words = list(dict.fromkeys("-".join(each) for each in itertools.product(*parts)))
    return rng.sample(words, rng.randint(1, min(40, len(words) - 1))), words


@pytest.mark.parametrize("name", ALPHABETS)
def test_word_list_accepts_its_words_and_no_other(name):
    for seed in range(30):
        accepted, words = word_list(seed, ALPHABETS[name])
        matcher = Matcher(deterministic(f"root ::= {any_of(map(literal, accepted))}"))
        sample = random.Random(seed).sample(words, min(100, len(words)))
        assert {word for word in {*sample, *accepted} if matcher.accepts(word)} == set(accepted)


@pytest.mark.parametrize("name", ALPHABETS)
def test_alternatives_of_a_rule_begin_with_different_characters(name):
    """Two characters beyond ASCII can begin with the same byte, so only one alternative may begin with one."""
    for seed in range(30):
        accepted, _ = word_list(seed, ALPHABETS[name])
        for line in deterministic(f"root ::= {any_of(map(literal, accepted))}").splitlines():
            firsts = re.findall(r'(?:::=|\|) (?:"((?:\\.|[^"\\])[^"]*)|\[([^\]]*))', line)
            wide = [literal or chars for literal, chars in firsts if (literal or chars).startswith(r"\u")]
            assert len(wide) <= 1, line


@pytest.mark.parametrize(
    ("low", "high"),
    [(-9999, 9999), (-32768, 32767), (-(2**31), 2**31 - 1), (0, 20_000_000_000), (-1000, 9999), (5, 5), (-3, -1)],
)
def test_integer_range_accepts_its_members_only(low, high):
    schema = {"type": "integer", "minimum": low, "maximum": high}
    matcher = Matcher(grammar_from({"kind": "json_schema", "schema": schema, "param": "guided_json"}))
    rng = random.Random(low)
    candidates = [low - 1, low, low + 1, -1, 0, 1, high - 1, high, high + 1]
    candidates += [rng.randint(-(10 ** rng.randint(1, 14)), 10 ** rng.randint(1, 14)) for _ in range(300)]
    for number in candidates:
        assert matcher.accepts(str(number)) == (low <= number <= high), number
    assert not matcher.accepts("-0")
    assert not matcher.accepts("00")


PATTERNS = [
    r"[a-z]*[a-z][0-9][0-9]",
    r"(ab|a)(c|bcd)*",
    r"(a|b)*abb",
    r"\d{2,4}-(x|xy|xyz)+",
    r"[^a]{1,3}b?",
    r"(红|绿|红绿)[大小]{0,2}",
    r".*end",
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_regular_expression_accepts_what_python_accepts(pattern):
    matcher = Matcher(grammar_from({"kind": "regex", "pattern": pattern, "param": "guided_regex"}))
    rng = random.Random(pattern)
    for _ in range(1_500):
        text = "".join(rng.choices("abcdxyz019-红绿大小en", k=rng.randint(0, 7)))
        assert matcher.accepts(text) == bool(re.fullmatch(pattern, text)), text


@pytest.mark.parametrize("pattern", [*PATTERNS, "b", "^a", "[a-z]{2}", "x$"])
@pytest.mark.parametrize(("minimum", "maximum"), [(0, 3), (2, 2), (3, None), (1, 6)])
def test_string_with_a_pattern_and_a_length_matches_both(pattern, minimum, maximum):
    schema = {"type": "string", "pattern": pattern, "minLength": minimum} | ({"maxLength": maximum} if maximum else {})
    try:
        matcher = Matcher(grammar_from({"kind": "json_schema", "schema": schema, "param": "guided_json"}))
    except InvalidRequest as error:
        assert "no text has both" in str(error)
        return
    rng = random.Random(pattern)
    for _ in range(300):
        text = "".join(rng.choices('abcdxyz019-红绿大小en"\\', k=rng.randint(0, 8)))
        expected = minimum <= len(text) <= (maximum or 99) and bool(re.search(pattern, text))
        assert matcher.accepts(json.dumps(text, ensure_ascii=False)) == expected, text


@pytest.mark.parametrize("maximum", [255, 500, 2048])
def test_pattern_with_a_large_length_is_kept_without_strict(maximum):
    schema = {"properties": {name: {"type": "string", "pattern": "^https://", "maxLength": maximum} for name in "abc"}}
    constraint = {"kind": "json_schema", "schema": schema, "strict": False, "param": "guided_json"}
    matcher = Matcher(grammar_from(constraint))
    assert matcher.accepts('{"a": "https://x"}')
    assert not matcher.accepts('{"a": "http://x"}')


def test_length_that_excludes_the_pattern_is_rejected():
    schema = {"type": "string", "pattern": "^abc$", "maxLength": 2}
    with pytest.raises(InvalidRequest, match="no text has both"):
        grammar_from({"kind": "json_schema", "schema": schema, "param": "guided_json"})


def test_rewritten_schema_accepts_the_same_texts():
    schema = {
        "type": "object",
        "properties": {
            "kind": {"enum": ["red-small", "red-big", "green-small"]},
            "count": {"type": "integer", "minimum": -5, "maximum": 500},
            "either": {"anyOf": [{"const": "ab"}, {"const": "abc"}, {"type": "null"}]},
        },
        "required": ["kind"],
    }
    matcher = Matcher(grammar_from({"kind": "json_schema", "schema": schema, "param": "guided_json"}))
    for kind, count, either in itertools.product(
        ["red-small", "red-big", "green-small", "green-big"], [-6, -5, 0, 500, 501], ["ab", "abc", None, "abcd"]
    ):
        value = {"kind": kind, "count": count, "either": either}
        expected = kind != "green-big" and -5 <= count <= 500 and either != "abcd"
        assert matcher.accepts(json.dumps(value)) == expected
        assert matcher.accepts(json.dumps({"kind": kind})) == (kind != "green-big")


def test_new_rules_do_not_collide_with_names_of_the_grammar():
    grammar = 'root ::= "a" root_1 | ("b" | "bc") root__2\nroot_1 ::= "x" | "xy"\nroot__2 ::= "z"\n'
    rewritten = deterministic(grammar)
    names = [line.split(" ")[0] for line in rewritten.splitlines()]
    assert len(names) == len(set(names))
    for text in ("ax", "axy", "bz", "bcz", "bc", "a", "xz"):
        assert Matcher(rewritten).accepts(text) == Matcher(grammar).accepts(text)


@pytest.mark.parametrize("grammar", ["root = 'a'", 'root ::= "a" # comment', 'root ::= ("a"', "root ::= *"])
def test_malformed_or_unsupported_grammar_is_rejected(grammar):
    with pytest.raises(ValueError, match=r"\S"):
        deterministic(grammar)


def test_client_grammar_that_cannot_be_rewritten_is_passed_on_unchanged():
    grammar = 'root ::= "a" # comment\n'
    assert grammar_from({"kind": "grammar", "grammar": grammar, "param": "guided_grammar"}) == grammar


def without_layout(grammar):
    return re.sub(r"[ ()\n]", "", grammar)


@pytest.mark.parametrize("count", ["{900,}", "{0,1000}", "{500,500}"])
def test_rule_with_a_large_count_stays_as_it_is(count):
    grammar = f'root ::= "x" ([a-z] | "-" [a-z]){count}\n'
    assert without_layout(deterministic(grammar)) == without_layout(grammar)


def test_large_automaton_with_a_cycle_is_rewritten_without_minimization():
    grammar = deterministic('root ::= ((("a" | "b" "c"){30}){30} "x")*\n')
    assert grammar.count("::=") >= 900


def test_rewritten_grammar_has_a_limit():
    """Rules beyond the limit stay as they are."""
    rules = [f"r{i} ::= {any_of(literal(f'{i}-{k}-{k * 7919 % 1000}') for k in range(900))}" for i in range(30)]
    grammar = "root ::= " + " ".join(f"r{i}" for i in range(30)) + "\n" + "\n".join(rules) + "\n"
    rewritten = without_layout(deterministic(grammar))
    assert len(rewritten) < 3 * len(grammar)
    assert without_layout(rules[-1]) in rewritten
    assert without_layout(rules[0]) not in rewritten


def test_a_range_of_characters_is_split_where_utf8_needs_more_bytes():
    assert char_class([(0x41, 0x10FFFF)]) == r"[A-\u007f\u0080-\u07ff\u0800-\uffff\U00010000-\U0010ffff]"
    assert char_class([(0x7F, 0x80), (0x900, 0x900)]) == r"[\u007f\u0080\u0900]"
