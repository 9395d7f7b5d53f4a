"""Calls as most families write them: one JSON object with a name and arguments, or a list of such."""

from typing import Any

import orjson

from frontend.parsing.tools.scanner import Malformed, Source, Steps

# What some write beside name and arguments.
_OTHER_KEYS = ("id", "type", "index")


def read_calls(source: Source) -> Steps[None]:
    """Read an object, or a list of objects, one a call. Raises Malformed."""
    if not (yield from source.at("[")):
        yield from read_call(source)
        return
    while True:
        yield from source.skip_space()
        yield from read_call(source)
        yield from source.skip_space()
        if not (yield from source.at(",")):
            break
    yield from source.at("]")
    source.mark()


def read_call(source: Source) -> Steps[None]:
    """Read `{"name": …, "arguments": {…}}`; Llama says `parameters`. Raises Malformed.

    Small models forget to close the object, or close it twice: once there are name and arguments, it is a call.
    """
    name, arguments, complete = None, None, False
    yield from source.expect("{")
    yield from source.skip_space()
    while (yield from source.coming()) != "}":
        key = yield from _read(source)
        yield from source.skip_space()
        yield from source.expect(":")
        yield from source.skip_space()
        if key == "name":
            name = yield from _read(source)
            source.check(name)
        elif key not in ("arguments", "parameters"):
            if not complete and key not in _OTHER_KEYS:
                raise Malformed  # an answer in JSON, which nobody should wait for
            yield from _read(source)
        elif complete or arguments is not None:
            raise Malformed
        elif name is not None:
            yield from read_arguments(source, name)
            complete = True
        else:
            arguments = _text_of((yield from _read(source)))
        if not (yield from _goes_on(source)):
            break
    closed = yield from _closed(source)
    if arguments is None and not complete and not closed:
        raise Malformed  # arguments may be missing, but not cut off
    if not complete:
        _call(source, name, arguments or "{}")
    source.mark()


def read_arguments(source: Source, name: str) -> Steps[None]:
    """Read the arguments of a call: an object, the same in a string, or null. Raises Malformed."""
    if (yield from source.coming()) != "{":
        _call(source, name, _text_of((yield from _read(source))))
        return
    source.start(name)
    pieces: list[str] = []

    def pass_on(piece: str) -> None:
        pieces.append(piece)
        source.argue(piece)

    yield from source.value(pass_on)
    _parsed("".join(pieces))
    source.called()


def _goes_on(source: Source) -> Steps[bool]:
    yield from source.skip_space()
    comma = yield from source.at(",")
    yield from source.skip_space()
    return comma


def _closed(source: Source) -> Steps[bool]:
    """Pass over what closes an object, once or more often; tell whether anything did."""
    closed = False
    while (yield from source.coming()) == "}":
        yield from source.skip_space()
        closed = yield from source.at("}")
    return closed


def _call(source: Source, name: Any, arguments: str) -> None:
    source.start(name)
    source.argue(arguments)
    source.called()


def _read(source: Source) -> Steps[Any]:
    """Return a whole JSON value."""
    pieces: list[str] = []
    yield from source.value(pieces.append)
    return _parsed("".join(pieces))


def _text_of(arguments: Any) -> str:
    if arguments is None:
        return "{}"
    if isinstance(arguments, str):
        if not isinstance(_parsed(arguments), dict):
            raise Malformed
        return arguments
    if not isinstance(arguments, dict):
        raise Malformed
    return orjson.dumps(arguments).decode()


def _parsed(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        raise Malformed from None
