"""Reads tool calls that are JSON, as in most tool formats: objects with a name and arguments, or lists of them."""

from typing import Any

import orjson

from frontend.parsing.tools.scanner import MalformedCall, Scanner, Steps

FENCE, FENCE_END = "```json", "```"

# Keys that some models add to a call; their values are ignored.
_OTHER_KEYS = ("id", "type", "index")


def bare_calls(scanner: Scanner) -> Steps[None]:
    """Read calls without tags at the start of the output, if the output starts with a brace or a bracket.

    Raises MalformedCall.
    """
    if scanner.at_start and (yield from scanner.peek()) in ("{", "["):
        yield from json_calls(scanner)


def json_calls(scanner: Scanner) -> Steps[None]:
    """Read one or more calls or lists of calls, with only white space between them. Raises MalformedCall."""
    while True:
        yield from scanner.skip_space()
        yield from read_calls(scanner)
        if (yield from scanner.peek()) not in ("{", "["):
            return


def read_calls(scanner: Scanner) -> Steps[None]:
    """Read one call, or a JSON list of calls. Raises MalformedCall."""
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
    """Read `{"name": …, "arguments": {…}}`; Llama writes `parameters` instead of `arguments`. Raises MalformedCall.

    Small models sometimes omit the closing brace, or write it twice. Such a call is accepted if its name and its
    arguments are complete.
    """
    name, arguments, complete = None, None, False
    yield from scanner.expect("{")
    yield from scanner.skip_space()
    while (yield from scanner.peek()) != "}":
        key = yield from _read_value(scanner)
        yield from scanner.skip_space()
        yield from scanner.expect(":")
        yield from scanner.skip_space()
        if key == "name":
            name = yield from _read_value(scanner)
            scanner.check(name)
        elif key not in ("arguments", "parameters"):
            if not complete and key not in _OTHER_KEYS:
                raise MalformedCall  # this is ordinary JSON: fail now, so that the rest is streamed, not buffered
            yield from _read_value(scanner)
        elif complete or arguments is not None:
            raise MalformedCall
        elif name is not None:
            yield from read_arguments(scanner, name)
            complete = True
        else:
            arguments = _arguments_text((yield from _read_value(scanner)))
        if not (yield from _skip_comma(scanner)):
            break
    closed = yield from _skip_closing(scanner)
    if arguments is None and not complete and not closed:
        raise MalformedCall  # the object is cut off, and its arguments may be in the missing part
    if not complete:
        _emit_call(scanner, name, arguments or "{}")
    scanner.mark()


def read_arguments(scanner: Scanner, name: str) -> Steps[None]:
    """Read the arguments of a call and emit the call. Raises MalformedCall.

    The arguments are a JSON object, a string that contains one, or null, which means `{}`.
    """
    if (yield from scanner.peek()) != "{":
        _emit_call(scanner, name, _arguments_text((yield from _read_value(scanner))))
        return
    scanner.start(name)
    pieces: list[str] = []

    def pass_on(piece: str) -> None:
        pieces.append(piece)
        scanner.emit_arguments(piece)

    yield from scanner.value(pass_on)
    _parse("".join(pieces))
    scanner.end_call()


def _skip_comma(scanner: Scanner) -> Steps[bool]:
    yield from scanner.skip_space()
    comma = yield from scanner.accept(",")
    yield from scanner.skip_space()
    return comma


def _skip_closing(scanner: Scanner) -> Steps[bool]:
    """Skip any closing braces and return whether there were any."""
    closed = False
    while (yield from scanner.peek()) == "}":
        yield from scanner.skip_space()
        closed = yield from scanner.accept("}")
    return closed


def _emit_call(scanner: Scanner, name: Any, arguments: str) -> None:
    scanner.start(name)
    scanner.emit_arguments(arguments)
    scanner.end_call()


def _read_value(scanner: Scanner) -> Steps[Any]:
    """Read a complete JSON value and return it parsed. Raises MalformedCall."""
    pieces: list[str] = []
    yield from scanner.value(pieces.append)
    return _parse("".join(pieces))


def _arguments_text(arguments: Any) -> str:
    if arguments is None:
        return "{}"
    if isinstance(arguments, str):
        if not isinstance(_parse(arguments), dict):
            raise MalformedCall
        return arguments
    if not isinstance(arguments, dict):
        raise MalformedCall
    return orjson.dumps(arguments).decode()


def _parse(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        raise MalformedCall from None
