"""How many of an answer's tokens are what the model thought before it answered."""

_OPEN, CLOSE = "<think>", "</think>"


class ReasoningCounter:
    """Counts the tokens from `<think>`, which an answer with a thought begins with, to `</think>`, or to its end.

    `opened` is what the prompt has begun already. Text may come late: a token counts with the text that it completes.
    """

    def __init__(self, reasoning_prefix: str = ""):
        self._count = 0
        self._text, self._begun, self._over = reasoning_prefix, False, False

    def push(self, text: str) -> None:
        """Take one more token's text."""
        if self._over:
            return
        self._count += 1
        self._text += text
        if not self._begun:
            self._begin()
        if self._begun:
            self._over = CLOSE in self._text
            self._text = self._text[-len(CLOSE) :]

    def _begin(self) -> None:
        begun = self._text.lstrip()
        self._begun = begun.startswith(_OPEN)
        if not self._begun and not _OPEN.startswith(begun):
            self._count, self._over = 0, True

    @property
    def tokens(self) -> int:
        """The tokens of the thought so far; none while it is open whether there is one."""
        return self._count if self._begun else 0
