"""WAV files that were written without knowing how long they would be."""

import struct


def with_length(content: bytes) -> bytes:
    """Return the file with its length in its header, where a stream has 2³²-1 instead."""
    data = content.index(b"data") + 4
    sizes = struct.pack("<I", len(content) - 8), struct.pack("<I", len(content) - data - 4)
    return b"".join([content[:4], sizes[0], content[8:data], sizes[1], content[data + 4 :]])
