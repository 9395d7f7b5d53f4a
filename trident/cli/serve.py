"""trident serve: export what is missing, start Triton and the frontend, keep them running."""

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
        from trident.cli.models import export_models

        settings = settings_of(flags | {"models": export_models(settings.models, settings)})
    from trident.launch.supervisor import run

    sys.exit(run(settings))
