"""The `trident list`, `show` and `search` commands for the models in the catalog and in the model repository."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from frontend.settings import Settings
from trident.cli.options import GroupedCommand, complete_model, fail, load_command_settings, setting_options
from trident.cli.repository import RepositoryModel, repository_models, size_text

if TYPE_CHECKING:
    from export.catalog import Entry

# AHA's types of models.
_TYPES = {
    "chat": "llm",
    "ocr": "ocr",
    "transcription": "asr",
    "speech": "tts",
    "background_removal": "image",
    "image_generation": "image",
    "embedding": "embedding",
    "rerank": "reranker",
}
_MAX_FOUND = 20
_TEMPLATE_LINES = 12


@click.command("list", cls=GroupedCommand)
@click.option("-j", "--json", "as_json", is_flag=True, help="print JSON")
@click.option("-w", "--wide", is_flag=True, help="show the size and age of the models on this machine, as Ollama does")
@setting_options(["model_repository"])
def list_models(as_json: bool, wide: bool, **flags: Any) -> None:
    """List the models of the catalog and those on this machine.

    A check mark means that the model is on this machine.
    `trident run`, `serve` and `pull` accept the name and every ID of a model; see also `trident search`.

    \b
    Examples:
      trident list
      trident list --wide
    """
    repository = load_command_settings(flags).model_repository
    if wide:
        rows = [_wide_row(model) for model in repository_models(repository)]
        click.echo(json.dumps(rows, indent=1) if as_json else _wide_table(rows))
        return
    listed = _listed(repository)
    if as_json:
        click.echo(json.dumps(listed, indent=1))
        return
    click.echo("Available models:\n")
    click.echo(f"{'Model ID':<40} {'Owner':<20} {'type':<10} {'Download':<10}".rstrip())
    click.echo("-" * 83)
    for row in listed:
        mark = "✔" if row["downloaded"] else ""
        click.echo(f"{row['model_id']:<40} {row['owner']:<20} {row['type']:<10} {mark:<10}".rstrip())


def _listed(repository: Path) -> list[dict[str, Any]]:
    from export.catalog import load_catalog

    catalog, on_disk = load_catalog(), {model.name: model for model in repository_models(repository)}
    rows = [_row(entry) | {"downloaded": entry.name in on_disk} for entry in catalog.values()]
    rows += [_own_row(model) for name, model in on_disk.items() if name not in catalog]
    return [row | {"exported": row["downloaded"]} for row in rows]


def _row(entry: "Entry") -> dict[str, Any]:
    """Return AHA's keys of a model of the catalog, and our own."""
    model_id = entry.modelscope or entry.id
    shared = ("name", "id", "task", "size", "license", "description", "starter")
    return {
        "model_id": model_id,
        "owner": model_id.partition("/")[0] if "/" in model_id else entry.owned_by,
        "type": _type(entry.task, {**entry.parameters, "capabilities": " ".join(entry.capabilities)}),
    } | {key: getattr(entry, key) for key in shared}


def _own_row(model: RepositoryModel) -> dict[str, Any]:
    task = model.parameters.get("task", "-")
    return {
        "model_id": model.id,
        "owner": model.parameters.get("owned_by", "-"),
        "type": _type(task, model.parameters),
        "name": model.name,
        "id": model.id,
        "task": task,
        "size": model.size(),
        "license": "",
        "description": "not in the catalog",
        "starter": False,
        "downloaded": True,
    }


def _type(task: str, parameters: dict[str, str]) -> str:
    """Return AHA's type of a model. Chat models that read documents have a default prompt."""
    if task == "chat" and "default_prompt" in parameters:
        return "ocr"
    if task == "chat" and "vision" in parameters.get("capabilities", ""):
        return "vlm"
    return _TYPES.get(task, "-")


def _wide_row(model: RepositoryModel) -> dict[str, Any]:
    return {
        "name": model.id,
        "id": model.fingerprint[:12] or "-",
        "size": model.size(),
        "modified": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(model.modified)),
        "age": _age(time.time() - model.modified),
    }


def _wide_table(rows: list[dict[str, Any]]) -> str:
    from trident.cli.api import table

    return table(
        [(row["name"], row["id"], size_text(row["size"]), row["age"]) for row in rows], "NAME", "ID", "SIZE", "MODIFIED"
    )


def _age(seconds: float) -> str:
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if (count := int(seconds // length)) > 0:
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "a moment ago"


@click.command(cls=GroupedCommand)
@click.argument("query", default="")
@click.option("--task", metavar="TASK", help="only models of the catalog for this task, such as chat")
@click.option("-n", "--limit", type=click.IntRange(1, 100), default=_MAX_FOUND, metavar="N", help="results per source")
@click.option("--json", "as_json", is_flag=True, help="print JSON")
def search(query: str, task: str | None, limit: int, as_json: bool) -> None:
    """Search models in the catalog and on the Hugging Face hub.

    Without QUERY, and with --task, only the catalog is searched.

    \b
    Examples:
      trident search qwen3
      trident search --task transcription
    """
    found = list(_search_catalog(query.lower(), task))[:limit]
    note = ""
    if query and not task:
        hub, note = _search_hub(query, limit)
        known = {row["id"].lower() for row in found}
        found += [row for row in hub if row["id"].lower() not in known]
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False, indent=1))
    for row in [] if as_json else found:
        size = size_text(row["size"]) if row["size"] else ""
        click.echo(f"{row['name']:32} {row['task']:18} {size:>8}  {row['description']}".rstrip())
    if note:
        click.echo(note, err=True)
    if not found:
        fail(f"No model found for '{query}'" if query else "No model found")


def _search_catalog(query: str, task: str | None) -> Iterator[dict[str, Any]]:
    from export.catalog import load_catalog

    for entry in load_catalog().values():
        texts = (entry.name, *entry.ids, entry.description, entry.task, entry.owned_by)
        wanted = task is None or entry.task == task.replace("-", "_")
        if wanted and all(any(word in text.lower() for text in texts) for word in query.split()):
            row = {key: getattr(entry, key) for key in ("name", "id", "task", "size", "license", "description")}
            yield row | {"source": "catalog"}


def _search_hub(query: str, limit: int) -> tuple[list[dict[str, Any]], str]:
    """Return models on the Hugging Face hub, and a note if it cannot be searched."""
    from urllib.parse import urlencode

    from huggingface_hub import constants

    from export.fetch import ExportError
    from export.sources.download import read_url

    if constants.HF_HUB_OFFLINE:
        return [], "HF_HUB_OFFLINE is set: only the catalog was searched"
    # The library's own search retries for 30 seconds where there is no network.
    fields = {"search": query, "sort": "downloads", "direction": -1, "limit": limit}
    try:
        found = json.loads(read_url("search", f"{constants.ENDPOINT}/api/models?{urlencode(fields)}", {}))
        return [_hub_row(model) for model in found], ""
    except (ExportError, ValueError, KeyError, TypeError) as error:
        reason = str(error).removeprefix("search: ").partition(" (")[0]
        return [], f"The Hugging Face hub was not searched: {reason}"


def _hub_row(model: dict[str, Any]) -> dict[str, Any]:
    description = f"{model.get('downloads') or 0:,} downloads" + (
        ", GGUF" if "gguf" in (model.get("tags") or ()) else ""
    )
    return {
        "name": model["id"],
        "id": model["id"],
        "task": model.get("pipeline_tag") or "",
        "size": 0,
        "license": "",
        "description": description,
        "source": "huggingface",
    }


@click.command(cls=GroupedCommand)
@click.argument("name", metavar="MODEL", shell_complete=complete_model)
@click.option("--template", is_flag=True, help="print only the chat template")
@click.option("--license", "only_license", is_flag=True, help="print only the license")
@click.option("--parameters", is_flag=True, help="print only the configuration's parameters")
@click.option("--json", "as_json", is_flag=True, help="print JSON")
@setting_options(["models", "kv_cache_gb", "context_length", "max_num_seqs", "model_repository"])
def show(name: str, template: bool, only_license: bool, parameters: bool, as_json: bool, **flags: Any) -> None:
    """Show what is known about a model.

    That is its task, architecture, size, context, quantization, license, engine and template. MODEL is its name or one
    of its IDs. Facts that are read from an exported model are missing until it is exported.

    \b
    Examples:
      trident show qwen2.5-coder-0.5b
      trident show qwen2.5-coder-0.5b --template
    """
    from trident.cli.model_facts import ModelFacts

    if sum([template, only_license, parameters, as_json]) > 1:
        raise click.UsageError("Use only one of --template, --license, --parameters and --json")
    settings = load_command_settings(flags)
    facts = ModelFacts(name, settings)
    if template:
        click.echo(facts.template() or fail(f"{name} has no chat template on this machine"))
    elif only_license:
        click.echo(facts.known().get("license") or fail(f"The license of {name} is unknown"))
    elif parameters:
        click.echo("\n".join(f"{key:24} {value}" for key, value in facts.parameters.items()))
    elif as_json:
        described = facts.known() | {"configuration": facts.parameters, "template": facts.template()}
        click.echo(json.dumps(described, ensure_ascii=False, indent=1))
    else:
        _show_facts(facts, settings)


def _show_facts(facts: Any, settings: Settings) -> None:
    for key, value in facts.known().items():
        click.echo(f"{key:14} {', '.join(value) if isinstance(value, list) else value}")
    if not facts.config:
        click.echo(f"not exported; to export it, run: trident export {facts.name}{facts.weights_hint()}")
        return
    if text := facts.template():
        lines = text.splitlines()
        click.echo("\ntemplate")
        click.echo("\n".join(f"  {line[:100]}" for line in lines[:_TEMPLATE_LINES]))
        if len(lines) > _TEMPLATE_LINES:
            click.echo(f"  … {len(lines) - _TEMPLATE_LINES} more lines (--template shows all)")
    click.echo(f"\n{facts.config}")
    for key, value in facts.parameters.items():
        shown = value if len(value) <= 80 else f"{value[:77]}..."
        click.echo(f"  {key:24} {shown!r}" if "\n" in shown else f"  {key:24} {shown}")
    _show_memory(facts.name, settings)


def _show_memory(name: str, settings: Settings) -> None:
    """Show the memory that a model needs, together with the other models of the settings."""
    from trident.launch.memory_plan import make_plan
    from trident.launch.preflight import LaunchError

    names = [model for model in settings.models if (settings.model_repository / model / "config.pbtxt").exists()]
    try:
        plan = make_plan(settings, names if name in names else [name])
    except LaunchError as error:
        fail(str(error))
    click.echo("\nmemory")
    for line in plan.describe():
        click.echo(f"  {line}")
    for key, value in plan.parameters.get(name, {}).items():
        click.echo(f"  {key:24} {value}")
