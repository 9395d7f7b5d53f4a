"""Writes grammars that match the JSON numbers within given bounds, digit by digit."""

from collections.abc import Iterator
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any

from backends.generation.grammar.ebnf import UnsupportedConstraint, any_of, literal, repeat

# The number of decimal digits that a double always holds exactly. JSON parsers may round numbers with more digits.
_DIGITS = 15
_MAXIMUM = 10**_DIGITS - 1
_MAX_DECIMALS = 6
_MIN_DECIMALS = 2

ANY_INTEGER = f'"-"? ("0" | [1-9] [0-9]{{0,{_DIGITS - 1}}})'
ANY_NUMBER = f'{ANY_INTEGER} ("." [0-9]{{1,{_DIGITS}}})? ([eE] [+-]? [0-9] [0-9]?)?'

Digits = tuple[tuple[int, int], ...]
"""A set of numbers of equal length, described by the minimum and maximum of each digit, from first to last."""


def integer(schema: dict[str, Any]) -> str:
    """Return the expression for an integer within the schema's bounds.

    Raises UnsupportedConstraint if the bounds are invalid or not supported, or if no integer is within the bounds.
    """
    low, high = _bounds(schema)
    if low is None and high is None:
        return ANY_INTEGER
    first = -_MAXIMUM if low is None else int(low.to_integral_value(ROUND_CEILING))
    last = _MAXIMUM if high is None else int(high.to_integral_value(ROUND_FLOOR))
    first += "exclusiveMinimum" in schema and low == first
    last -= "exclusiveMaximum" in schema and high == last
    return _between(first, last, 0, tails=False)


def number(schema: dict[str, Any]) -> str:
    """Return the expression for a number within the schema's bounds.

    Raises UnsupportedConstraint if the bounds are invalid or not supported, or if no number with as many decimals as
    the bounds (or 2, if that is more) is within the bounds.
    """
    low, high = _bounds(schema)
    if low is None and high is None:
        return ANY_NUMBER
    decimals = max(-int(bound.normalize().as_tuple().exponent) for bound in (low, high) if bound is not None)
    decimals = max(0, decimals)
    if decimals > _MAX_DECIMALS:
        raise UnsupportedConstraint(f"bounds with more than {_MAX_DECIMALS} decimals are not supported")
    exclusive = {"exclusiveMinimum", "exclusiveMaximum"} & schema.keys()
    if exclusive or (low is not None and high is not None and high - low < 1):
        decimals = max(_MIN_DECIMALS, decimals)  # with fewer decimals, no number might be within the bounds
    scale = 10**decimals
    first = -_MAXIMUM * scale if low is None else int(low * scale)
    last = _MAXIMUM * scale if high is None else int(high * scale)
    first += "exclusiveMinimum" in schema and low is not None
    last -= "exclusiveMaximum" in schema and high is not None
    return _between(first, last, decimals, tails=True)


def _bounds(schema: dict[str, Any]) -> tuple[Decimal | None, Decimal | None]:
    def bound(inclusive: str, exclusive: str) -> Decimal | None:
        given = {key: schema[key] for key in (inclusive, exclusive) if key in schema}
        for key, value in given.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > _MAXIMUM:
                raise UnsupportedConstraint(f"'{key}' must be a number with at most {_DIGITS} digits")
        if len(given) == 2:
            raise UnsupportedConstraint(f"'{inclusive}' together with '{exclusive}' is not supported")
        return Decimal(str(*given.values())) if given else None

    return bound("minimum", "exclusiveMinimum"), bound("maximum", "exclusiveMaximum")


def _between(first: int, last: int, decimals: int, tails: bool) -> str:
    """Return the expression for the numbers from `first` to `last`, in units of the last decimal.

    For example, with `decimals` 2, a `first` of 150 stands for 1.50. With `tails`, numbers may have more decimals if
    they stay within the bounds.
    """
    if first > last:
        raise UnsupportedConstraint("no number is within the bounds")
    options = []
    if first < 0:
        minimum, maximum = max(1, -last), -first
        options += [f'"-" {expression}' for expression in _magnitudes(minimum, maximum, decimals, tails)]
    if last >= 0:
        options += _magnitudes(max(0, first), last, decimals, tails)
    return any_of(f"({option})" for option in options)


def _magnitudes(first: int, last: int, decimals: int, tails: bool) -> Iterator[str]:
    """Yield the expressions for the unsigned numbers from `first` to `last`, in units of the last decimal.

    With `tails`, numbers below `last` may have more decimals. If `last` is the largest supported number, there is
    no upper limit.
    """
    tail = " " + _tail(decimals) if tails else ""
    point = f' "." [0-9]{{{decimals}}}' if decimals else ""
    if last >= _MAXIMUM * 10**decimals:  # no limit: first yield all numbers with more digits than `first`
        longer = max(1, len(str(first // 10**decimals)))
        yield f"[1-9] [0-9]{{{longer},{_DIGITS}}}{point}{tail}"
        last = 10 ** (longer + decimals) - 1
        yield from (
            _digits_expression(digits, decimals) + tail for digits in _digit_patterns(first, last, decimals + 1)
        )
        return
    if tails and first < last:
        yield from (
            _digits_expression(digits, decimals) + tail for digits in _digit_patterns(first, last - 1, decimals + 1)
        )
        first = last
    yield from (_digits_expression(digits, decimals) for digits in _digit_patterns(first, last, decimals + 1))


def _tail(decimals: int) -> str:
    digits = repeat("[0-9]", 1, _DIGITS - decimals)
    return f'("." {digits})?' if decimals == 0 else f"({digits})?"


def _digits_expression(digits: Digits, decimals: int) -> str:
    terms = [literal(str(a)) if a == b else f"[{a}-{b}]" for a, b in digits]
    if decimals:
        terms.insert(len(terms) - decimals, '"."')
    return " ".join(terms)


def _digit_patterns(first: int, last: int, width: int) -> Iterator[Digits]:
    """Yield digit patterns that together match the numbers from `first` to `last`.

    The numbers are padded with leading zeros to at least `width` digits.
    """
    while first <= last:
        text = str(first).zfill(width)
        end = min(last, 10 ** len(text) - 1)
        yield from _same_length(text, str(end).zfill(width))
        first = end + 1


def _same_length(first: str, last: str) -> Iterator[Digits]:
    if not first:
        yield ()
        return
    a, b, rest = int(first[0]), int(last[0]), len(first) - 1
    if a == b:
        yield from (((a, a), *others) for others in _same_length(first[1:], last[1:]))
        return
    if first[1:] != "0" * rest:
        yield from (((a, a), *others) for others in _same_length(first[1:], "9" * rest))
        a += 1
    top = b if last[1:] == "9" * rest else b - 1
    if a <= top:
        yield ((a, top), *(((0, 9),) * rest))
    if top < b:
        yield from (((b, b), *others) for others in _same_length("0" * rest, last[1:]))
