"""The process that encodes images and audio, one after the other. It receives media, and answers with chunks.

The command line is `process.py FOLDER MAX_IMAGE_TOKENS FILE_DESCRIPTOR`. A file that makes the library fail an
assertion ends only this process, not the engine.
"""

import os
import sys
from pathlib import Path

from backends import start_logging
from backends.common.child_process import open_connection
from backends.common.llamacpp.library import GGUF, LIBRARIES, PROJECTOR
from backends.common.llamacpp.media.messages import Audio, Encoded, Image, Ready
from backends.common.llamacpp.media.mtmd import InvalidMedia, Projector, ProjectorError

LIBRARY = Path(LIBRARIES, "mtmd", "xllamacpp.abi3.so")
"""The multimodal library in a model's version folder."""


def main() -> None:
    """Run the process until its connection is closed."""
    folder, max_tokens = Path(sys.argv[1]), int(sys.argv[2])
    start_logging(f"{folder.parent.name} media")
    connection, threads = open_connection(), len(os.sched_getaffinity(0))
    try:
        projector = Projector(
            folder / LIBRARY, folder / GGUF, folder / PROJECTOR, threads=threads, max_tokens=max_tokens
        )
    except ProjectorError as error:
        connection.send(str(error))
        return
    connection.send(Ready(projector.accepts_images, projector.sample_rate))
    while True:
        try:
            media: Image | Audio = connection.recv()
        except EOFError:
            return
        try:
            connection.send(Encoded(projector.encode(media)))
        except InvalidMedia as error:
            connection.send(Encoded([], str(error), is_client_error=True))
        except ProjectorError as error:
            connection.send(Encoded([], str(error)))


if __name__ == "__main__":
    main()
