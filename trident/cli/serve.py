"""The `trident serve` command, which runs the launcher.

Unless Triton runs elsewhere (`--triton`), the command first exports the models that are missing or out of date.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from frontend.settings import Settings
from trident.cli.options import (
    GroupedCommand,
    complete_model,
    export_options,
    fail,
    load_command_settings,
    model_options,
    setting_options,
)


@click.command(cls=GroupedCommand)
@click.argument("names", nargs=-1, metavar="[MODEL]...", shell_complete=complete_model)
@model_options
@setting_options()
def serve(
    names: tuple[str, ...],
    mmproj: Path | None,
    lora: tuple[Path, ...],
    trust_remote_code: bool,
    force: bool,
    **flags: Any,
) -> None:
    """Serve models, by default the starter set on 127.0.0.1:10100.

    MODEL is the name of a catalog entry (see `trident list`) or of a folder in the model repository, a repository on
    the Hugging Face hub or ModelScope (USER/REPO, hf:USER/REPO:Q4_K_M, ms:USER/REPO), the URL or path of a GGUF file,
    or a folder (./FOLDER). The first model of each task is the default for that task. Each option can also be set by an
    environment variable (TRIDENT_PORT) or by a key in trident.toml (port).

    \b
    Examples:
      trident serve
      trident serve qwen3-0.6b whisper-base --port 8080
      trident serve ./model.gguf --host 0.0.0.0
    """
    files, others = export_options(mmproj, lora), export_options(None, (), trust_remote_code, force)
    serve_models(list(names), files, flags, others)


def serve_models(
    names: list[str], options: list[str], flags: dict[str, Any], more: Sequence[str] = (), alias: str | None = None
) -> NoReturn:
    """Export models if needed, and run the launcher until it is stopped. Does not return.

    `options` are options of the export about the files of one model, and `more` are further ones. `alias` is another
    name of the only model.
    """
    if names and flags.get("models"):
        raise click.UsageError("Name the models either as arguments or with --models")
    # A list, because a tuple's items are split at spaces and commas, which the name of a file may contain.
    settings = load_command_settings(flags | ({"models": names} if names else {}))
    if not settings.starts_triton and options:
        raise click.UsageError(f"{options[0]} does not apply to a Triton that runs elsewhere (--triton)")
    models = list(settings.models)
    if settings.starts_triton:
        models = export_for_serving(settings, list(settings.models), [*options, *more])
    flags["models"] = models
    if alias:
        flags["aliases"] = json.dumps(settings.aliases | {alias: models[0]})
    from trident.launch.supervisor import run

    sys.exit(run(load_command_settings(flags), lambda: load_command_settings(flags)))


def export_for_serving(
    settings: Settings, names: Sequence[str], options: Sequence[str], *, quiet: bool = False
) -> list[str]:
    """Export the models to serve that are missing or out of date, and return their names in the model repository.

    `names` are what users call models; without any, the starter set is served. `options` are options of `trident
    export`. If `quiet`, standard output is not used, and models that are up to date are not mentioned.
    """
    from export.catalog import starter_names
    from export.fetch import ExportError
    from export.local_names import recorded_origin, require_weights
    from export.sources.reference import parse_reference

    given = list(names or starter_names())
    try:
        # What to export for each model, if anything.
        sources = [
            name if parse_reference(name) else recorded_origin(settings.model_repository / name) for name in given
        ]
    except ExportError as error:
        fail(str(error))
    wanted = [source for source in sources if source]
    if options and options[0] in ("--mmproj", "--lora", "--weights") and (len(given) != 1 or not wanted):
        raise click.UsageError(f"{options[0]} requires exactly one MODEL, whose file exists")
    exported = iter(_run_export(settings, [*wanted, *options], quiet) if wanted else [])
    models = [next(exported) if source else name for name, source in zip(given, sources, strict=True)]
    try:
        for name in models:
            require_weights(settings.model_repository / name)
    except ExportError as error:
        fail(str(error))
    return models


def _run_export(settings: Settings, arguments: list[str], quiet: bool) -> list[str]:
    """Run `trident export` in a process of its own, so that the launcher does not keep its imports and memory."""
    import tempfile

    from trident.launch.children import end_with_parent

    with tempfile.TemporaryDirectory() as folder:
        names = Path(folder) / "names.json"
        command = [sys.executable, "-m", "trident", "export", *arguments, "--names-to", str(names)]
        environment = os.environ | settings.as_environment()
        stdout = subprocess.PIPE if quiet else None
        with subprocess.Popen(
            command, env=environment, stdout=stdout, encoding="utf-8", preexec_fn=end_with_parent
        ) as process:
            for line in process.stdout or ():
                if not line.rstrip().endswith((": up to date", ": ready")):
                    click.echo(line, nl=False, err=True)
        if process.returncode < 0:
            fail(f"The export was killed by signal {-process.returncode}. If memory was short, close other programs")
        if process.returncode:
            sys.exit(process.returncode)
        exported: list[str] = json.loads(names.read_text(encoding="utf-8"))
        return exported
