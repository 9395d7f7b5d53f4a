"""A copy of a publisher's folder for conversions: links to the files they need, and configurations they understand.

It has no code and no pickle files, unless the option `trust_remote_code` is set.
"""

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from export.fetch import ExportError
from export.sources.model_files import FolderFiles, needed_files


@contextmanager
def readable_folder(source: Path, options: Mapping[str, str]) -> Iterator[Path]:
    """Yield a folder with links to the files that a conversion needs, and configurations that it understands."""
    trusted = "trust_remote_code" in options
    with tempfile.TemporaryDirectory(prefix="trident-") as folder:
        for name in needed_files(FolderFiles(source), with_code=trusted):
            target = Path(folder) / PurePosixPath(name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to((source / name).resolve())
        for name in ("config.json", "tokenizer_config.json"):
            if content := read_json_file(Path(folder) / name):
                (Path(folder) / name).unlink()
                changed = _understood(content, trusted=trusted)
                (Path(folder) / name).write_text(json.dumps(changed), encoding="utf-8")
        yield Path(folder)


def _understood(config: Mapping[str, Any], *, trusted: bool) -> dict[str, Any]:
    """Return a configuration without references to code, and with the names that older transformers read.

    Transformers 5 writes the base of the rotary embedding to `rope_parameters`, which version 4 ignores without a word.
    """
    changed = {
        name: _understood(value, trusted=trusted) if name in ("text_config", "llm_config") else value
        for name, value in config.items()
        if trusted or name != "auto_map"
    }
    rope = changed.get("rope_parameters")
    if isinstance(rope, dict) and "rope_theta" in rope:
        changed.setdefault("rope_theta", rope["rope_theta"])
        scaling = {name: value for name, value in rope.items() if name != "rope_theta"}
        if scaling.get("rope_type", "default") != "default":
            changed.setdefault("rope_scaling", scaling)
    if "dtype" in changed:
        changed.setdefault("torch_dtype", changed["dtype"])
    return changed


def read_json_file(path: Path) -> dict[str, Any]:
    """Return a JSON file; empty if it is missing. Raises ExportError if it is not a JSON object."""
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ExportError(f"{path.name} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ExportError(f"{path.name} is not a JSON object")
    return content
