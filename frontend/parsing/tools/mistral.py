"""Mistral: `[TOOL_CALLS]` and a JSON list; since version 11 of its tokenizer `[TOOL_CALLS]name[ARGS]{…}` a call."""

import secrets
import string
from collections.abc import Sequence

from frontend.parsing.tools.json_calls import read_arguments, read_calls
from frontend.parsing.tools.scanner import Source, Steps
from frontend.parsing.tools.tool_constraints import Function, calls_schema, parameters_of, tagged, tagged_any
from frontend.parsing.tools.tool_format import Constraint, Family

_TAG, _ID, _ARGUMENTS = "[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"
_ID_LENGTH = 9


def _grammar(source: Source) -> Steps[None]:
    while (yield from source.prose(_TAG)):
        yield from source.skip_space()
        if (yield from source.coming()) in ("[", "{"):
            yield from read_calls(source)
        else:
            yield from _named(source)


def _named(source: Source) -> Steps[None]:
    name = yield from source.name()
    if (yield from source.at(_ID)):
        yield from source.name()
    yield from source.at(_ARGUMENTS)
    yield from source.skip_space()
    yield from read_arguments(source, name)


def _new_id() -> str:
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(_ID_LENGTH))


def _constrain(functions: Sequence[Function], maximum: int | None) -> Constraint:
    return tagged(_TAG, calls_schema(functions, maximum), "", maximum=1)


def _constrain_named(functions: Sequence[Function], maximum: int | None) -> Constraint:
    return tagged_any([(f"{_TAG}{f['name']}{_ARGUMENTS}", parameters_of(f), "") for f in functions])


MISTRAL = Family(_grammar, _constrain, (_TAG, _ID, _ARGUMENTS), _new_id, _ID_LENGTH)
MISTRAL_NAMED = Family(_grammar, _constrain_named, (_TAG, _ID, _ARGUMENTS), _new_id, _ID_LENGTH)
