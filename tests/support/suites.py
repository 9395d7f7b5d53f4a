"""The heavy suites, their inputs, and the record of the inputs with which each suite last passed."""

import hashlib
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
FOLDER = CHECKOUT / "tests" / "heavy"
_RECORD = FOLDER / "passed.json"


def load_suites() -> dict[str, list[str]]:
    """Return the inputs of each suite: its test file, the common inputs, and the inputs in the suite's table.

    The common inputs and the tables are in suites.toml. Inputs are paths relative to the checkout.
    """
    tables = tomllib.loads((FOLDER / "suites.toml").read_text(encoding="utf-8"))
    common = tables.pop("all")["inputs"]
    return {name: [f"tests/heavy/{name}.py", *common, *table["inputs"]] for name, table in tables.items()}


def fingerprint(inputs: list[str], checkout: Path = CHECKOUT) -> str:
    """Return a hash of the paths and contents of all input files. Raises FileNotFoundError if an input is missing."""
    digest = hashlib.sha256()
    for path in sorted({file for name in inputs for file in _files(checkout / name)}):
        digest.update(f"{path.relative_to(checkout)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def unchanged_suites(fingerprints: dict[str, str]) -> list[str]:
    """Return the suites whose fingerprint equals the fingerprint that was recorded when the suite last passed."""
    passed = _read_record()
    return [name for name, value in fingerprints.items() if passed.get(name) == value]


def record_passed(fingerprints: dict[str, str]) -> None:
    """Record in passed.json that these suites passed with these fingerprints.

    Suites that are no longer in suites.toml are removed from the record.
    """
    passed = {name: value for name, value in _read_record().items() if name in load_suites()} | fingerprints
    _RECORD.write_text(json.dumps(passed, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _read_record() -> dict[str, str]:
    record: dict[str, str] = json.loads(_RECORD.read_text(encoding="utf-8")) if _RECORD.exists() else {}
    return record


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    elif path.is_dir():
        yield from (file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    else:
        raise FileNotFoundError(2, "Input of a heavy suite not found", str(path))
