"""Calls as most families write them: one JSON object with a name and arguments, or a list of such."""

from typing import Any

import orjson

from frontend.parsing.tools.scanner import Malformed, Scanner, Steps

FENCE, FENCE_END = "```json", "```"

# What some write beside name and arguments.
_OTHER_KEYS = ("id", "type", "index")


def bare_calls(scanner: Scanner) -> Steps[None]:
    """Read the calls that an answer begins with, if it does."""
    if scanner.untouched and (yield from scanner.peek()) in ("{", "["):
        yield from json_calls(scanner)


def json_calls(scanner: Scanner) -> Steps[None]:
    """Read one after the other, whatever white space is between."""
    while True:
        yield from scanner.skip_space()
        yield from read_calls(scanner)
        if (yield from scanner.peek()) not in ("{", "["):
            return


def read_calls(scanner: Scanner) -> Steps[None]:
    """Read an object, or a list of objects, one a call. Raises Malformed."""
    if not (yield from scanner.accept("[")):
        yield from read_call(scanner)
        return
    while True:
        yield from scanner.skip_space()
        yield from read_call(scanner)
        yield from scanner.skip_space()
        if not (yield from scanner.accept(",")):
            break
    yield from scanner.accept("]")
    scanner.mark()


def read_call(scanner: Scanner) -> Steps[None]:
    """Read `{"name": …, "arguments": {…}}`; Llama says `parameters`. Raises Malformed.

    Small models forget to close the object, or close it twice: once there are name and arguments, it is a call.
    """
    name, arguments, complete = None, None, False
    yield from scanner.expect("{")
    yield from scanner.skip_space()
    while (yield from scanner.peek()) != "}":
        key = yield from _read(scanner)
        yield from scanner.skip_space()
        yield from scanner.expect(":")
        yield from scanner.skip_space()
        if key == "name":
            name = yield from _read(scanner)
            scanner.check(name)
        elif key not in ("arguments", "parameters"):
            if not complete and key not in _OTHER_KEYS:
                raise Malformed  # an answer in JSON, which nobody should wait for
            yield from _read(scanner)
        elif complete or arguments is not None:
            raise Malformed
        elif name is not None:
            yield from read_arguments(scanner, name)
            complete = True
        else:
            arguments = _text_of((yield from _read(scanner)))
        if not (yield from _goes_on(scanner)):
            break
    closed = yield from _closed(scanner)
    if arguments is None and not complete and not closed:
        raise Malformed  # arguments may be missing, but not cut off
    if not complete:
        _call(scanner, name, arguments or "{}")
    scanner.mark()


def read_arguments(scanner: Scanner, name: str) -> Steps[None]:
    """Read the arguments of a call: an object, the same in a string, or null. Raises Malformed."""
    if (yield from scanner.peek()) != "{":
        _call(scanner, name, _text_of((yield from _read(scanner))))
        return
    scanner.start(name)
    pieces: list[str] = []

    def pass_on(piece: str) -> None:
        pieces.append(piece)
        scanner.emit_arguments(piece)

    yield from scanner.value(pass_on)
    _parsed("".join(pieces))
    scanner.end_call()


def _goes_on(scanner: Scanner) -> Steps[bool]:
    yield from scanner.skip_space()
    comma = yield from scanner.accept(",")
    yield from scanner.skip_space()
    return comma


def _closed(scanner: Scanner) -> Steps[bool]:
    """Pass over what closes an object, once or more often; tell whether anything did."""
    closed = False
    while (yield from scanner.peek()) == "}":
        yield from scanner.skip_space()
        closed = yield from scanner.accept("}")
    return closed


def _call(scanner: Scanner, name: Any, arguments: str) -> None:
    scanner.start(name)
    scanner.emit_arguments(arguments)
    scanner.end_call()


def _read(scanner: Scanner) -> Steps[Any]:
    """Return a whole JSON value."""
    pieces: list[str] = []
    yield from scanner.value(pieces.append)
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
