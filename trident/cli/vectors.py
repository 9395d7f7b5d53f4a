"""The `trident embed` and `rerank` commands."""

import json
from typing import Any

import click

from trident.cli import requests
from trident.cli.attachments import read_stdin
from trident.cli.client import failures_reported
from trident.cli.options import GroupedCommand, model_option
from trident.cli.session import session, session_options

_BATCH = 32


@click.command(cls=GroupedCommand)
@click.argument("texts", nargs=-1, metavar="[TEXT]...")
@model_option("embedding model (default: the server's)")
@click.option(
    "--dimensions", type=click.IntRange(1), metavar="N", help="length of the vectors, if the model has several"
)
@click.option("--json", "as_json", is_flag=True, help="print objects with the texts")
@session_options
def embed(texts: tuple[str, ...], model: str | None, dimensions: int | None, as_json: bool, **flags: Any) -> None:
    """Print the vector of each TEXT as one line of JSON.

    Without TEXT, each line of standard input that is not blank is one.

    \b
    Examples:
      trident embed "How do I reset my password?"
      trident embed --json < questions.txt > vectors.jsonl
    """
    given = list(texts) or _lines("TEXT")
    with failures_reported(), session(flags, model, "embedding") as opened:
        for start in range(0, len(given), _BATCH):
            batch = given[start : start + _BATCH]
            for text, vector in zip(batch, requests.embed(opened, batch, dimensions), strict=True):
                click.echo(json.dumps({"text": text, "embedding": vector} if as_json else vector, ensure_ascii=False))


@click.command(cls=GroupedCommand)
@click.argument("query")
@click.argument("documents", nargs=-1, metavar="[DOCUMENT]...")
@model_option("rerank model (default: the server's)")
@click.option("-n", "--top", type=click.IntRange(1), metavar="N", help="print only the best N documents")
@click.option("--json", "as_json", is_flag=True, help="print JSON")
@session_options
def rerank(
    query: str, documents: tuple[str, ...], model: str | None, top: int | None, as_json: bool, **flags: Any
) -> None:
    """Sort DOCUMENTS by how well they fit QUERY, with scores from 0 to 1.

    Without DOCUMENTS, each line of standard input that is not blank is one.

    \b
    Examples:
      trident rerank "capital of Japan" "Tokyo is in Japan." "Apples are fruit."
      grep -rh TODO src | trident rerank "security" --top 5
    """
    given = list(documents) or _lines("DOCUMENT")
    with failures_reported(), session(flags, model, "rerank") as opened:
        results = requests.rerank(opened, query, given, top)
    if as_json:
        click.echo(json.dumps(results, ensure_ascii=False, indent=2))
        return
    for result in results:
        click.echo(f"{result['relevance_score']:.4f}  {result['document']}")


def _lines(what: str) -> list[str]:
    """Return the lines of standard input that are not blank. Raise UsageError if there are none."""
    lines = [line for line in read_stdin().splitlines() if line.strip()]
    if not lines:
        raise click.UsageError(f"Missing argument '{what}'")
    return lines
