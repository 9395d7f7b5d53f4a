"""The byte alphabet of byte-level BPE (GPT-2). A separate file because model conversions depend on its text."""


def byte_alphabet() -> dict[str, int]:
    """Return the byte of each character of byte-level BPE (GPT-2); printable characters stand for their own code."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
