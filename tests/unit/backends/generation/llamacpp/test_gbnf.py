"""Translation of grammars to llama.cpp's notation."""

import pytest

from backends.generation.grammar.ebnf import UnsupportedConstraint
from backends.generation.llamacpp.gbnf import to_gbnf


def test_names_and_nested_counts_are_rewritten():
    text = to_gbnf('root ::= a_1 ("x" b){2,3}\na_1 ::= [a-z]+ | "\\u00e9"\nb ::= "\\"" | ""\n')
    assert text.splitlines() == [
        "root ::= (r1 p0{2} p0{0,1})",
        r'r1 ::= ([a-z]{1} [a-z]* | "\u00e9")',
        r'r2 ::= ("\"" | "")',
        'p0 ::= ("x" r2)',
    ]


def test_comments_and_rules_over_several_lines_are_accepted():
    text = to_gbnf('# A comment\nroot ::= "#" | # more\n  other\nother ::= [#]\n')
    assert text.splitlines()[0] == 'root ::= ("#" | r1)'


def test_large_counts_are_split():
    for line in to_gbnf("root ::= [a-z]{0,5000}").splitlines():
        for count in line.replace("}", "{").split("{")[1::2]:
            assert int(count.rpartition(",")[2]) <= 256


@pytest.mark.parametrize(
    ("grammar", "message"),
    [
        ("", "must consist of rules"),
        ('start ::= "a"', "no rule named 'root'"),
        ("root ::= other", "no rule named 'other'"),
        ('root ::= "a', "is invalid"),
        ('root ::= (("a")', "is invalid"),
        (f'root ::= {"(" * 200}"a"{")" * 200}', "nested deeper than 100 levels"),
    ],
)
def test_invalid_grammars_are_rejected(grammar, message):
    with pytest.raises(UnsupportedConstraint, match=message):
        to_gbnf(grammar)
