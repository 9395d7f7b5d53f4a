"""trident serve: export what is missing, start Triton and the frontend, keep them running."""

import os
import subprocess
import sys
from typing import Any

import click

from trident.cli.options import GroupedCommand, setting_options, settings_of


@click.command(cls=GroupedCommand)
@click.argument("names", nargs=-1, metavar="[MODEL]...")
@setting_options()
def serve(names: tuple[str, ...], **flags: Any) -> None:
    """Serve models on a port, by default the starter set on 127.0.0.1:10100.

    MODEL is a name in the catalog (`trident list`) or of a folder in the model repository. The first model of a task is
    the default of that task. Each option is also an environment variable (TRIDENT_PORT) and a key of trident.toml.
    """
    settings = settings_of(flags | ({"models": names} if names else {}))
    if settings.triton is None:
        from export.catalog import load_catalog, starter_names

        models = settings.models or starter_names()
        if wanted := [name for name in models if name in load_catalog()]:
            # In a process of its own: what a conversion has loaded and allocated is not the launcher's.
            command = [sys.executable, "-m", "trident", "export", *wanted]
            if code := subprocess.run(command, env=os.environ | settings.as_environment()).returncode:
                sys.exit(code)
        settings = settings_of(flags | {"models": list(models)})
    from trident.launch.supervisor import run

    sys.exit(run(settings))
