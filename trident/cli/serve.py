"""The `trident serve` command, which runs the launcher.

Unless Triton runs elsewhere (`--triton`), the command first exports the models that are missing or out of date.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from trident.cli.options import GroupedCommand, fail, file_options, load_command_settings, setting_options


@click.command(cls=GroupedCommand)
@click.argument("names", nargs=-1, metavar="[MODEL]...")
@file_options
@setting_options()
def serve(names: tuple[str, ...], mmproj: Path | None, lora: tuple[Path, ...], **flags: Any) -> None:
    """Serve models, by default the starter set on 127.0.0.1:10100.

    MODEL is the name of a catalog entry (see `trident list`) or of a folder in the model repository, the path of a GGUF
    file, or a repository with GGUF files on the Hugging Face hub (hf:USER/REPO:Q4_K_M). The first model of each task is
    the default for that task. Each option can also be set by an environment variable (TRIDENT_PORT) or by a key in
    trident.toml (port).
    """
    from export.fetch import ExportError
    from export.local_names import exported_file, hub_file, is_gguf, is_hub, local_name, require_weights

    # A list, because a tuple's items are split at spaces and commas, which the name of a file may contain.
    settings = load_command_settings(flags | ({"models": list(names)} if names else {}))
    models = [local_name(Path(name)) if is_gguf(name) else name for name in settings.models]
    files = ["--mmproj", str(mmproj)] if mmproj else []
    files += [argument for adapter in lora for argument in ("--lora", str(adapter))]
    if settings.triton is not None and files:
        raise click.UsageError(f"{files[0]} does not apply to a Triton that runs elsewhere (--triton)")
    if settings.triton is None:
        from export.catalog import load_catalog, starter_names

        given = settings.models or tuple(starter_names())
        models = models or list(given)
        sources = [
            name
            if name in load_catalog() or is_gguf(name) or is_hub(name)
            else exported_file(settings.model_repository / name)
            for name in given
        ]
        wanted = [source for source in sources if source]
        if files and (len(given) != 1 or not wanted):
            raise click.UsageError(f"{files[0]} requires exactly one MODEL, whose GGUF file exists")
        if wanted:
            # This is a separate process, so that the launcher does not keep the imports and memory of a conversion.
            command = [sys.executable, "-m", "trident", "export", *wanted, *files]
            if code := subprocess.run(command, env=os.environ | settings.as_environment()).returncode:
                sys.exit(code)
        models = [local_name(hub_file(name, settings.cache)) if is_hub(name) else name for name in models]
        try:
            for name in models:
                require_weights(settings.model_repository / name)
        except ExportError as error:
            fail(str(error))
    settings = load_command_settings(flags | {"models": models})
    from trident.launch.supervisor import run

    sys.exit(run(settings))
