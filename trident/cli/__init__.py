"""The `trident` command and its subcommands."""

import io
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from trident.cli.aha import cli, serv
from trident.cli.bench import bench
from trident.cli.config import config
from trident.cli.downloads import delete, download, pull, rm
from trident.cli.export import export
from trident.cli.instances import logs, ps, reload, status, stop
from trident.cli.keys import keys
from trident.cli.media import cutout, image, speak, transcribe
from trident.cli.model_instances import instances
from trident.cli.models import list_models, search, show
from trident.cli.progress import prepare_plain_progress
from trident.cli.run import run
from trident.cli.serve import serve
from trident.cli.size import size
from trident.cli.vectors import embed, rerank

_INTERRUPTED = 130


class Trident(click.Group):
    """The command, whose `--help` lists the subcommands in sections.

    Exit codes: 0 for success, 1 for a failure, 2 for wrong arguments, 130 after Ctrl-C.
    """

    def main(self, args: Sequence[str] | None = None, **options: Any) -> Any:  # type: ignore[override]
        """Run the command, and exit with its exit code."""
        prepare_plain_progress()
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # for terminals without all characters
        if os.environ.get("NO_COLOR"):
            options.setdefault("color", False)
        if not options.pop("standalone_mode", True):
            return super().main(args, **options, standalone_mode=False)
        try:
            code = super().main(args, **options, standalone_mode=False)
        except click.ClickException as error:
            error.show()
            sys.exit(error.exit_code)
        except click.Abort:
            click.echo("Interrupted", err=True)
            sys.exit(_INTERRUPTED)
        except (OSError, UnicodeError) as error:
            click.echo(f"Error: {error}", err=True)
            sys.exit(1)
        sys.exit(code if isinstance(code, int) else 0)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the subcommands in sections."""
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(str(each.name), each.get_short_help_str(100)) for each in commands])


@click.group(cls=Trident, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(None, "-V", "--version", package_name="trident-serve", prog_name="trident")
def main() -> None:
    """Run open models of every kind, and serve them behind an OpenAI-compatible API.

    \b
    Examples:
      trident run qwen2.5-coder-0.5b "Why is the sky blue?"
      trident serve
      trident transcribe interview.mp3 --format srt
    """


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a shell completion script.

    \b
    Example:
      eval "$(trident completion bash)"
    """
    from click.shell_completion import get_completion_class

    script = get_completion_class(shell)
    assert script is not None  # noqa: S101
    click.echo(script(main, {}, "trident", "_TRIDENT_COMPLETE").source())


SECTIONS: dict[str, tuple[click.Command, ...]] = {
    "Use models": (run, transcribe, speak, cutout, image, embed, rerank),
    "Serve models": (serve, ps, status, logs, stop, reload, bench, size),
    "Manage models": (list_models, search, show, pull, rm, export),
    "Manage the gateway": (keys, config, instances),
    "AHA's commands": (cli, serv, download, delete),
    "Other": (completion,),
}
"""The subcommands by section."""

for command in [each for commands in SECTIONS.values() for each in commands]:
    main.add_command(command)
main.add_command(list_models, "ls")  # as Ollama calls it
