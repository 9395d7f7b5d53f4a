"""What an answer must look like: from the request's constraint to a grammar for the engine.

A constraint has a `kind` and what belongs to it:

| kind | |
|---|---|
| `json_object` | any JSON object |
| `json_schema` | `schema`; `strict` (true): refuse what a grammar cannot say, or leave it out |
| `regex` | `pattern`, for the whole answer |
| `choice` | `choices`: texts, of which the answer is one |
| `grammar` | `grammar`: EBNF, the engine's own notation |
| `either` | `of`: constraints, of which the answer keeps to one |
| `tagged` | `tags`: {`begin`, `schema`, `end`} each, `min` to `max` of them, `separator` between |

`param` names the request's field, for errors.
"""

from collections.abc import Mapping
from typing import Any

from backends.common.errors import InvalidRequest
from backends.generation.grammar.ebnf import MAX_CHARACTERS, NotPossible, Rules, any_of, literal, repeat
from backends.generation.grammar.json_schema import JSONGrammar
from backends.generation.grammar.regex import regex_grammar

_MAX_CHOICES = 1_000
_MAX_TAGS = 128


def grammar_from(constraint: Mapping[str, Any]) -> str:
    """Return the grammar. Raises InvalidRequest, which names the request's field."""
    try:
        if constraint["kind"] == "grammar":
            return _grammar(constraint)
        rules = Rules()
        return rules.text(_WRITERS[constraint["kind"]](rules, constraint))
    except NotPossible as error:
        raise InvalidRequest(str(error), constraint.get("param")) from error
    except RecursionError as error:
        raise InvalidRequest("nested too deeply", constraint.get("param")) from error
    except (TypeError, AttributeError, ValueError, KeyError) as error:
        raise InvalidRequest("it is no schema", constraint.get("param")) from error


def _json_object(rules: Rules, constraint: Mapping[str, Any]) -> str:
    return JSONGrammar(rules).value({"type": "object"})


def _json_schema(rules: Rules, constraint: Mapping[str, Any]) -> str:
    return JSONGrammar(rules, constraint.get("strict", True)).value(constraint["schema"])


def _regex(rules: Rules, constraint: Mapping[str, Any]) -> str:
    return regex_grammar(constraint["pattern"])


def _choice(rules: Rules, constraint: Mapping[str, Any]) -> str:
    choices = constraint["choices"]
    if len(choices) > _MAX_CHOICES:
        raise NotPossible(f"more than {_MAX_CHOICES} choices")
    return any_of(map(literal, choices))


def _grammar(constraint: Mapping[str, Any]) -> str:
    grammar: str = constraint["grammar"]
    if len(grammar) > MAX_CHARACTERS:
        raise NotPossible(f"longer than {MAX_CHARACTERS} characters")
    grammar.encode()  # half a character is none: ValueError
    return grammar


def _either(rules: Rules, constraint: Mapping[str, Any]) -> str:
    return any_of(f"({_WRITERS[one['kind']](rules, one)})" for one in constraint["of"])


def _tagged(rules: Rules, constraint: Mapping[str, Any]) -> str:
    tags, minimum, maximum = constraint["tags"], constraint.get("min", 1), constraint.get("max", 1)
    if len(tags) > _MAX_TAGS:
        raise NotPossible(f"more than {_MAX_TAGS} tags")
    # Each schema has definitions of its own, so each has a writer; the rules are shared.
    values = [JSONGrammar(rules, constraint.get("strict", True)).value(tag["schema"]) for tag in tags]
    parts = [f"{literal(t['begin'])} ({v}) {literal(t['end'])}" for t, v in zip(tags, values, strict=True)]
    one = rules.name(any_of(f"({part})" for part in parts), "tag")
    more = repeat(f"({literal(constraint.get('separator', ''))} {one})", max(0, minimum - 1), maximum and maximum - 1)
    return f"{one} {more}" if minimum else f"({one} {more})?"


_WRITERS = {
    "json_object": _json_object,
    "json_schema": _json_schema,
    "regex": _regex,
    "choice": _choice,
    "either": _either,
    "tagged": _tagged,
}
