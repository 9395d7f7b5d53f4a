"""Facts about text that both sides of Triton need."""


def suffix_overlap(text: str, tag: str) -> int:
    """Return the length of the longest proper prefix of `tag` that `text` ends with."""
    longest = min(len(text), len(tag) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(tag[:n])), 0)


def byte_alphabet() -> dict[str, int]:
    """Return the byte of each character in which byte-level BPE (GPT-2) writes bytes: printable ones are themselves."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
