"""Writes grammars for JSON numbers within bounds, digit by digit."""

from collections.abc import Iterator, Mapping
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, InvalidOperation
from typing import Any, NamedTuple

from backends.generation.grammar.ebnf import UnsupportedConstraint, any_of, literal, repeat

# The number of decimal digits that a double always holds exactly. JSON parsers may round longer numbers.
_DIGITS = 15
_MAXIMUM = 10**_DIGITS - 1
_MAX_DECIMALS = 6
_MIN_DECIMALS = 2
# Multiples of other steps than powers of ten are listed one by one.
_MAX_MULTIPLES = 1_000

ANY_INTEGER = f'"-"? ("0" | [1-9] [0-9]{{0,{_DIGITS - 1}}})'
ANY_NUMBER = f'{ANY_INTEGER} ("." [0-9]{{1,{_DIGITS}}})? ([eE] [+-]? [0-9] [0-9]?)?'

Digits = tuple[tuple[int, int], ...]
"""Numbers with the same number of digits: the minimum and maximum of each digit, from the first to the last."""


class _Bounds(NamedTuple):
    low: Decimal | None
    excludes_low: bool
    high: Decimal | None
    excludes_high: bool

    def scaled(self, decimals: int) -> tuple[int, int]:
        """Return the first and the last number within the bounds, in units of the last of so many decimals."""
        scale = 10**decimals
        first, last = -_MAXIMUM * scale, _MAXIMUM * scale
        if self.low is not None:
            first = int((self.low * scale).to_integral_value(ROUND_CEILING))
            first += self.excludes_low and first == self.low * scale
        if self.high is not None:
            last = int((self.high * scale).to_integral_value(ROUND_FLOOR))
            last -= self.excludes_high and last == self.high * scale
        return first, last


def integer(schema: Mapping[str, Any]) -> str:
    """Return the expression for an integer within the schema's bounds that is a multiple of its `multipleOf`.

    Raises UnsupportedConstraint if a keyword is invalid or not supported, or no such integer exists.
    """
    bounds, step = _bounds(schema), _step(schema)
    if step is not None and step != 1:
        return _multiples(bounds, step, integers_only=True)
    if bounds.low is None and bounds.high is None:
        return ANY_INTEGER
    return _between(*bounds.scaled(0), 0, tails=False)


def number(schema: Mapping[str, Any]) -> str:
    """Return the expression for a number within the schema's bounds that is a multiple of its `multipleOf`.

    Raises UnsupportedConstraint if a keyword is invalid or not supported, or no number of the supported precision is
    within the bounds.
    """
    bounds, step = _bounds(schema), _step(schema)
    if step is not None:
        return _multiples(bounds, step, integers_only=False)
    if bounds.low is None and bounds.high is None:
        return ANY_NUMBER
    decimals = max(_decimals(bound) for bound in (bounds.low, bounds.high) if bound is not None)
    is_narrow = bounds.low is not None and bounds.high is not None and bounds.high - bounds.low < 1
    if bounds.excludes_low or bounds.excludes_high or is_narrow:
        decimals = max(_MIN_DECIMALS, decimals)  # with fewer decimals, no number might be left
    first, last = bounds.scaled(decimals)
    if first > last:
        decimals += 1  # numbers between two neighbors, such as exclusive bounds of 0.01 and 0.02
        first, last = bounds.scaled(decimals)
    if decimals > _MAX_DECIMALS:
        raise UnsupportedConstraint(f"bounds with more than {_MAX_DECIMALS} decimals are not supported")
    return _between(first, last, decimals, tails=True)


def is_within(value: float, schema: Mapping[str, Any]) -> bool:
    """Return whether a number is within the schema's bounds and a multiple of its `multipleOf`."""
    bounds, step, number = _bounds(schema), _step(schema), Decimal(str(value))
    if bounds.low is not None and (number < bounds.low or (bounds.excludes_low and number == bounds.low)):
        return False
    if bounds.high is not None and (number > bounds.high or (bounds.excludes_high and number == bounds.high)):
        return False
    try:
        return step is None or number % step == 0
    except InvalidOperation:  # the quotient has more digits than decimal computes with
        return False


def _bounds(schema: Mapping[str, Any]) -> _Bounds:
    """Return the schema's bounds. Bounds that restrict no number of the supported size are left out."""
    low, excludes_low = _bound(schema, "minimum", "exclusiveMinimum", sign=1)
    high, excludes_high = _bound(schema, "maximum", "exclusiveMaximum", sign=-1)
    return _Bounds(low, excludes_low, high, excludes_high)


def _bound(schema: Mapping[str, Any], inclusive: str, exclusive: str, sign: int) -> tuple[Decimal | None, bool]:
    """Return the stricter of an inclusive and an exclusive bound, and whether it is exclusive.

    `sign` is 1 for lower bounds, and -1 for upper bounds. In drafts before 6, `exclusive` is a boolean that makes the
    inclusive bound exclusive.
    """
    given = {key: schema[key] for key in (inclusive, exclusive) if key in schema}
    makes_exclusive = isinstance(given.get(exclusive), bool) and given.pop(exclusive)
    for key, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UnsupportedConstraint(f"'{key}' must be a number")
        if sign * value > _MAXIMUM:
            raise UnsupportedConstraint(f"'{key}' must be a number with at most {_DIGITS} digits")
    candidates = [(sign * Decimal(str(value)), key == exclusive or makes_exclusive) for key, value in given.items()]
    bound, is_exclusive = max(candidates, default=(Decimal(-_MAXIMUM), False))
    if bound < -_MAXIMUM or (bound == -_MAXIMUM and not is_exclusive):
        return None, False
    return sign * bound, is_exclusive


def _step(schema: Mapping[str, Any]) -> Decimal | None:
    step = schema.get("multipleOf")
    if step is None:
        return None
    if isinstance(step, bool) or not isinstance(step, int | float) or step <= 0:
        raise UnsupportedConstraint("'multipleOf' must be a positive number")
    return Decimal(str(step))


def _multiples(bounds: _Bounds, step: Decimal, integers_only: bool) -> str:
    """Return the expression for the multiples of `step` within the bounds."""
    digits, exponent = step.normalize().as_tuple()[1:]
    if digits == (1,) and isinstance(exponent, int) and -_MAX_DECIMALS <= exponent <= 0:
        decimals = 0 if integers_only else -exponent
        return _between(*bounds.scaled(decimals), decimals, tails=False)
    if integers_only and step != step.to_integral_value():
        raise UnsupportedConstraint("'multipleOf' must be an integer or a power of ten")
    decimals = _decimals(step)
    if decimals > _MAX_DECIMALS:
        raise UnsupportedConstraint(f"'multipleOf' with more than {_MAX_DECIMALS} decimals is not supported")
    first, last = bounds.scaled(decimals)
    unit = int(step * 10**decimals)
    multiples = range(-(-first // unit) * unit, last + 1, unit)
    if not 0 < len(multiples) <= _MAX_MULTIPLES:
        raise UnsupportedConstraint(
            f"'multipleOf' {step} needs 'minimum' and 'maximum' with 1 to {_MAX_MULTIPLES} multiples between them"
        )
    return any_of(literal(f"{Decimal(multiple).scaleb(-decimals).normalize():f}") for multiple in multiples)


def _decimals(number: Decimal) -> int:
    exponent = number.normalize().as_tuple().exponent
    return max(0, -int(exponent))


def _between(first: int, last: int, decimals: int, tails: bool) -> str:
    """Return the expression for the numbers from `first` to `last`, which are in units of the last decimal.

    With `decimals` 2, for example, 150 stands for 1.50. `tails` allows more decimals where the number stays in bounds.
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

    With `tails`, numbers below `last` may have more decimals. If `last` is the largest supported number, it is not a
    limit.
    """
    tail = " " + _tail(decimals) if tails else ""
    point = f' "." [0-9]{{{decimals}}}' if decimals else ""
    longer = max(1, len(str(first // 10**decimals)))
    if last >= _MAXIMUM * 10**decimals and longer < _DIGITS:
        # No limit: first yield all numbers with more digits than `first`.
        yield f"[1-9] [0-9]{{{longer},{_DIGITS - 1}}}{point}{tail}"
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
