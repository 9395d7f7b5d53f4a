"""What the frontend and the launcher tell each other about the processes of models.

The launcher writes a file when it revives a model or restarts Triton: a JSON object with the number of processes that
each model has had, so that the frontend does not wait for requests to the old process.
"""

import json
import os
from pathlib import Path


def report_hung(folder: Path, model: str, number: int) -> None:
    """Tell the launcher that process number `number` of a model does not respond, so that it starts another one."""
    folder.mkdir(parents=True, exist_ok=True)
    new = folder / f".{model}.{os.getpid()}"
    new.write_text(str(number), encoding="utf-8")
    new.replace(folder / model)


class Incarnations:
    """The file, as one reader has last seen it."""

    def __init__(self, path: Path):
        self._path = path
        self._changed_at = 0
        self._counts: dict[str, int] = {}
        self.changed()

    def number(self, model: str) -> int:
        """Return the number of the model's process, as last seen."""
        return self._counts.get(model, 0)

    def changed(self) -> list[str]:
        """Return the models whose process has been replaced since the last call."""
        try:
            changed_at = self._path.stat().st_mtime_ns
            if changed_at == self._changed_at:
                return []
            counts = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return []
        self._changed_at, known, self._counts = changed_at, self._counts, counts
        return [name for name, count in counts.items() if count != known.get(name, 0)]
