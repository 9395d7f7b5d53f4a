"""Run in .venv-openvino: `python -m tests.support.hugging_face_whisper SOURCE TARGET`.

Writes a Whisper model in CTranslate2's format as its publisher does: a folder with safetensors and a tokenizer.
"""

import sys
from pathlib import Path

from export.isolated.openvino_whisper import _write_transformers

if __name__ == "__main__":
    _write_transformers(Path(sys.argv[1]), Path(sys.argv[2]))
