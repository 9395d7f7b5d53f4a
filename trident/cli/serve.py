"""The `trident serve` command, which runs the launcher.

Unless Triton runs elsewhere (`--triton`), the command first exports the models that are missing or out of date.
"""

import os
import subprocess
import sys
from typing import Any

import click

from trident.cli.options import GroupedCommand, load_command_settings, setting_options


@click.command(cls=GroupedCommand)
@click.argument("names", nargs=-1, metavar="[MODEL]...")
@setting_options()
def serve(names: tuple[str, ...], **flags: Any) -> None:
    """Serve models, by default the starter set on 127.0.0.1:10100.

    MODEL is the name of a catalog entry (see `trident list`) or of a folder in the model repository. The first model of
    each task is the default for that task. Each option can also be set by an environment variable (TRIDENT_PORT)
    or by a key in trident.toml (port).
    """
    settings = load_command_settings(flags | ({"models": names} if names else {}))
    if settings.triton is None:
        from export.catalog import load_catalog, starter_names

        models = settings.models or starter_names()
        if wanted := [name for name in models if name in load_catalog()]:
            # This is a separate process, so that the launcher does not keep the imports and memory of a conversion.
            command = [sys.executable, "-m", "trident", "export", *wanted]
            if code := subprocess.run(command, env=os.environ | settings.as_environment()).returncode:
                sys.exit(code)
        settings = load_command_settings(flags | {"models": list(models)})
    from trident.launch.supervisor import run

    sys.exit(run(settings))
