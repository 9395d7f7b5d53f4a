"""Where a JSON value ends in a text that comes in pieces."""

import json
import re

_CLOSERS = {"{": "}", "[": "]"}
_PLAIN = re.compile(r'[^"\\\x00-\x1f]+')
_BETWEEN = re.compile(r"[ \t\n\r,:0-9+\-.eEtrufalsn]+")
_SCALAR = re.compile(r"[0-9a-zA-Z+\-.]+")


class JsonValue:
    """Follows one value to its end. It does not prove it valid, but stops where it cannot be.

    A line break, or another control character, in a string is forbidden in JSON and common in what models write: it
    comes out escaped.
    """

    def __init__(self) -> None:
        self.over = self.broken = False
        self._closers: list[str] = []
        self._in_string = self._in_scalar = self._escaped = False

    def read(self, text: str, place: int) -> tuple[str, int]:
        """Return what of the text from `place` on belongs to the value, and the place after it."""
        pieces: list[str] = []
        while place < len(text) and not (self.over or self.broken):
            step = self._string if self._in_string else self._scalar if self._in_scalar else self._structure
            piece, place = step(text, place)
            pieces.append(piece)
        return "".join(pieces), place

    def _string(self, text: str, place: int) -> tuple[str, int]:
        if not self._escaped and (plain := _PLAIN.match(text, place)):
            return plain[0], plain.end()
        character = text[place]
        if self._escaped:
            self._escaped = False
        elif character == "\\":
            self._escaped = True
        elif character == '"':
            self._in_string, self.over = False, not self._closers
        else:
            character = json.dumps(character)[1:-1]
        return character, place + 1

    def _scalar(self, text: str, place: int) -> tuple[str, int]:
        more = _SCALAR.match(text, place)
        if more:
            return more[0], more.end()
        self.over = True
        return "", place

    def _structure(self, text: str, place: int) -> tuple[str, int]:
        character = text[place]
        if character in _CLOSERS:
            self._closers.append(_CLOSERS[character])
        elif character == '"':
            self._in_string = True
        elif self._closers and character == self._closers[-1]:
            self._closers.pop()
            self.over = not self._closers
        elif self._closers and (between := _BETWEEN.match(text, place)):
            return between[0], between.end()
        elif not self._closers and _SCALAR.match(character):
            self._in_scalar = True
            return "", place
        else:
            self.broken = True
            return "", place
        return character, place + 1
