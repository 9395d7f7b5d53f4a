"""The characters in which byte-level BPE (GPT-2) writes bytes. A file of its own, since conversions depend on it."""


def byte_alphabet() -> dict[str, int]:
    """Return the byte of each character in which byte-level BPE (GPT-2) writes bytes: printable ones are themselves."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
