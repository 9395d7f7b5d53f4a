"""From token ids to text that may be shown: no half characters, nothing at or past a stop string."""

from collections.abc import Collection, Sequence

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream


class Detokenizer:
    """Decodes one answer as its tokens come. What it has returned never changes.

    Of the tokenizer's special tokens those that are `visible` are written out: what a call of a tool is marked with.
    """

    def __init__(self, tokenizer: Tokenizer, visible: Collection[str] = ()):
        self._tokenizer = tokenizer
        self._visible = {tokenizer.token_to_id(token): token for token in visible}
        self._stream = DecodeStream(skip_special_tokens=True)
        self._withheld: list[int] = []

    def push(self, token: int) -> str:
        """Return the text that `token` completes; a character whose bytes are not all there is kept back."""
        if token in self._visible:
            return self.flush() + self._visible[token]
        self._withheld.append(token)
        piece: str | None = self._stream.step(self._tokenizer, token)
        if piece is None:
            return ""
        self._withheld.clear()
        return piece

    def flush(self) -> str:
        """Return what is whole in the tokens kept back, at the end of the answer."""
        text: str = self._tokenizer.decode(self._withheld, skip_special_tokens=True)
        self._withheld.clear()
        return text.rstrip("\ufffd")


class StopStrings:
    """Passes text on up to the first stop string, keeping back what may be the beginning of one."""

    def __init__(self, stops: Sequence[str]):
        self._stops = tuple(stops)
        self._kept = ""
        self.hit = False

    def push(self, text: str) -> str:
        """Return the text that is safe to show; sets `hit` once a stop string was met."""
        if not self._stops:
            return text
        text = self._kept + text
        found = [(text.find(stop), stop) for stop in self._stops if stop in text]
        if found:
            self.hit, self._kept = True, ""
            return text[: min(found)[0]]
        keep = max(self._overlap(text, stop) for stop in self._stops)
        self._kept = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """Return what was kept back, when no more text will come."""
        kept, self._kept = self._kept, ""
        return kept

    @staticmethod
    def _overlap(text: str, stop: str) -> int:
        """Return the length of the longest end of `text` that begins `stop`."""
        longest = min(len(text), len(stop) - 1)
        return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
