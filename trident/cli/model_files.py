"""The options with which AHA's commands name the files of a model: `--weight-path`, `--gguf-path` and others."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

_NAMES = (
    "weight_path",
    "gguf_path",
    "mmproj_path",
    "onnx_path",
    "config_path",
    "tokenizer_dir",
    "artifact_format",
)


@dataclass(frozen=True)
class ModelFiles:
    """The files that a command names, if any."""

    weight_path: Path | None = None
    gguf_path: Path | None = None
    mmproj_path: Path | None = None
    onnx_path: Path | None = None
    config_path: Path | None = None
    tokenizer_dir: Path | None = None
    artifact_format: str = "auto"

    @classmethod
    def from_flags(cls, flags: dict[str, Any]) -> "ModelFiles":
        """Remove the options from a command's flags, and return them. Raise UsageError if they do not fit together."""
        files = cls(**{name: flags.pop(name) for name in _NAMES})
        files._check()
        return files

    @property
    def given(self) -> bool:
        """Whether the command names any files of the model."""
        return bool(self.weight_path or self.gguf_path or self.onnx_path)

    def apply(self, model: str) -> tuple[str, list[str]]:
        """Return the name of a model that is read from these files, and the options of its export.

        Raise UsageError if the model cannot be read from them.
        """
        from export.catalog import load_catalog
        from export.sources.reference import catalog_name

        options = ["--mmproj", str(self.mmproj_path)] if self.mmproj_path else []
        if self.gguf_path:
            return str(self.gguf_path.absolute()), options
        given = self.onnx_path or self.weight_path
        if given is None:
            return model, options
        folder = _folder(given)
        known = catalog_name(model)
        if self.onnx_path and (known is None or load_catalog()[known].architecture):
            raise click.UsageError(
                f"--onnx-path: '{model}' cannot be read from an ONNX file; Trident makes its own from the publisher's "
                "weights (--weight-path)"
            )
        return (model, ["--weights", str(folder), *options]) if known else (str(folder.absolute()), options)

    def _check(self) -> None:
        given = {"safetensors": self.weight_path, "gguf": self.gguf_path, "onnx": self.onnx_path}
        formats = [name for name, path in given.items() if path]
        if len(formats) > 1:
            raise click.UsageError("Use only one of --weight-path, --gguf-path and --onnx-path")
        if self.artifact_format != "auto" and formats != [self.artifact_format]:
            flag = {"safetensors": "--weight-path", "gguf": "--gguf-path", "onnx": "--onnx-path"}[self.artifact_format]
            raise click.UsageError(f"--artifact-format {self.artifact_format} requires {flag}")
        for name in _NAMES[:-1]:
            path, flag = getattr(self, name), "--" + name.replace("_", "-")
            if path and not path.exists():
                raise click.UsageError(f"{flag}: '{path}' does not exist")
        if self.weight_path and not self.weight_path.is_dir():
            raise click.UsageError(f"--weight-path: '{self.weight_path}' is not a folder")
        if self.mmproj_path and not self.gguf_path:
            raise click.UsageError("--mmproj-path requires --gguf-path")
        self._check_configuration()

    def _check_configuration(self) -> None:
        for name in ("config_path", "tokenizer_dir"):
            path, flag = getattr(self, name), "--" + name.replace("_", "-")
            if path is None:
                continue
            if self.gguf_path:
                click.echo(f"{flag} is not needed: the GGUF file has its tokenizer and configuration", err=True)
            elif self.onnx_path is None:
                raise click.UsageError(f"{flag} requires --gguf-path or --onnx-path")
            elif _folder(path).resolve() != _folder(self.onnx_path).resolve():
                raise click.UsageError(f"{flag}: put the files beside the ONNX file, in {_folder(self.onnx_path)}")


def model_file_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a command."""
    path = click.Path(path_type=Path)
    options = [
        click.option("--weight-path", type=path, metavar="FOLDER", help="folder with the model's weights"),
        click.option("--gguf-path", type=path, metavar="FILE", help="GGUF file of the model"),
        click.option("--mmproj-path", type=path, metavar="FILE", help="projector of --gguf-path for images and audio"),
        click.option("--onnx-path", type=path, metavar="PATH", help="ONNX file of the model, or its folder"),
        click.option("--config-path", type=path, metavar="PATH", help="configuration beside --onnx-path"),
        click.option("--tokenizer-dir", type=path, hidden=True),
        click.option(
            "--artifact-format",
            type=click.Choice(["auto", "safetensors", "gguf", "onnx"]),
            default="auto",
            hidden=True,
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def _folder(path: Path) -> Path:
    return path if path.is_dir() else path.parent
