"""The `trident` command and its subcommands."""

import click

from trident.cli.config import config
from trident.cli.instances import ps, reload, status, stop
from trident.cli.keys import keys
from trident.cli.model_instances import instances
from trident.cli.models import export, list_models, show
from trident.cli.serve import serve


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="trident-serve", prog_name="trident")
def main() -> None:
    """Serve open models of every kind behind one OpenAI-compatible API, using NVIDIA Triton."""


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a shell completion script.

    To enable it: eval "$(trident completion bash)"
    """
    from click.shell_completion import get_completion_class

    script = get_completion_class(shell)
    assert script is not None  # noqa: S101
    click.echo(script(main, {}, "trident", "_TRIDENT_COMPLETE").source())


for command in (serve, stop, status, reload, ps, list_models, show, export, keys, config, instances):
    main.add_command(command)
