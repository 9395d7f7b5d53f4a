"""The `trident run` command: a conversation in the terminal, one request, or AHA's form of it."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from trident.cli.attachments import content_part, read_file, split_prompt
from trident.cli.client import failures_reported
from trident.cli.model_files import ModelFiles, model_file_options
from trident.cli.options import GroupedCommand, fail, load_command_settings, model_options
from trident.cli.session import CHAT_TASKS, session, session_options

_EFFORTS = ("low", "medium", "high")


@click.command(cls=GroupedCommand)
@click.argument("model", required=False)
@click.argument("prompt", nargs=-1)
@click.option("-m", "--model", "named", metavar="MODEL", help="model for one request, of any task, with -i")
@click.option("-i", "--input", "inputs", multiple=True, metavar="TEXT|FILE|URL", help="input for -m; repeatable")
@click.option("-o", "--output", "outputs", multiple=True, metavar="FILE", help="file for the output of -m; repeatable")
@click.option("--system", metavar="TEXT", help="system message")
@click.option("--format", "format_", metavar="json|FILE", help="respond in JSON, or by the JSON schema in a file")
@click.option(
    "--think",
    is_flag=False,
    flag_value="true",
    metavar="[true|false|low|medium|high]",
    help="whether, and how much, a reasoning model reasons (--think alone: true)",
)
@click.option("--hidethinking", is_flag=True, help="do not show the reasoning")
@click.option("--temperature", type=float, metavar="N", help="sampling temperature")
@click.option("--seed", type=int, metavar="N", help="seed of the sampling")
@click.option("--max-tokens", type=int, metavar="N", help="maximum tokens of a response")
@click.option("--verbose", is_flag=True, help="show the times and the numbers of tokens after a response")
@click.option("--json", "as_json", is_flag=True, help="print the whole response as JSON")
@model_file_options
@model_options
@session_options
def run(
    model: str | None,
    prompt: tuple[str, ...],
    named: str | None,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    system: str | None,
    format_: str | None,
    think: str | None,
    hidethinking: bool,
    temperature: float | None,
    seed: int | None,
    max_tokens: int | None,
    verbose: bool,
    as_json: bool,
    mmproj: Path | None,
    lora: tuple[Path, ...],
    trust_remote_code: bool,
    force: bool,
    **flags: Any,
) -> None:
    """Talk to a chat model: a PROMPT, or a conversation.

    The response is streamed. Standard input is added to the prompt. Images and audio files that the prompt names are
    attached, if the model accepts them. The command uses the running server if it has the model; otherwise, it
    starts one and stops it at the end.

    With -m, the command sends one request to a model of any task. -i is a text, a file or a URL: a prompt and an
    image, a recording, a text to speak and a recording of the voice, or a query and documents (separated by |||).

    \b
    Examples:
      trident run qwen2.5-coder-0.5b "Write a haiku about spring"
      trident run qwen2.5-coder-0.5b                (a conversation; /? lists its commands)
      git diff | trident run qwen2.5-coder-0.5b "Write a commit message"
      trident run qwen3-vl-2b "What is in ./photo.jpg?"
      trident run -m whisper-base -i speech.wav
      trident run -m hibari -i "Good morning" -o morning.wav
    """
    files = ModelFiles.from_flags(flags)
    options = _export_options(mmproj, lora, trust_remote_code, force)
    if named:
        if model or prompt:
            raise click.UsageError("Name the model either as MODEL or with -m")
        if not inputs:
            raise click.UsageError("Missing option '-i' / '--input'")
        from trident.cli.one_request import run_once

        with failures_reported():
            run_once(named, inputs, outputs, files, options, flags)
        return
    if model is None:
        raise click.UsageError("Missing argument 'MODEL'. See `trident list`")
    if inputs or outputs:
        raise click.UsageError(f"{'-i' if inputs else '-o'} requires -m")
    fields = _fields(format_, think, temperature=temperature, seed=seed, max_tokens=max_tokens)
    name, more = files.apply(model)
    piped = "" if sys.stdin.isatty() else _read_stdin()
    text = "\n\n".join(filter(None, (" ".join(prompt), piped)))
    is_conversation = not text and sys.stdin.isatty()
    if not text and not is_conversation:
        raise click.UsageError("The prompt is empty")
    with failures_reported(), session(flags, name, *CHAT_TASKS, options=more + options) as opened:
        from trident.cli.conversation import Conversation

        conversation = Conversation(opened, system, fields, verbose=verbose, hides_reasoning=hidethinking)
        if is_conversation:
            from trident.cli.repl import Repl

            Repl(conversation, load_command_settings(flags).data / "prompt_history").run()
        elif as_json:
            click.echo(json.dumps(conversation.ask_whole(_content(text)), ensure_ascii=False, indent=2))
        else:
            conversation.ask(_content(text))


def _content(text: str) -> Any:
    """Return a prompt as the content of a message: with the files that it names, if any."""
    rest, paths = split_prompt(text)
    if not paths:
        return text
    return [*([{"type": "text", "text": rest}] if rest else []), *map(content_part, paths)]


def _export_options(mmproj: Path | None, lora: tuple[Path, ...], trust_remote_code: bool, force: bool) -> list[str]:
    options = ["--mmproj", str(mmproj)] if mmproj else []
    for adapter in lora:
        options += ["--lora", str(adapter)]
    return options + ["--trust-remote-code"] * trust_remote_code + ["--force"] * force


def _fields(format_: str | None, think: str | None, **sampling: Any) -> dict[str, Any]:
    fields = {name: value for name, value in sampling.items() if value is not None}
    return fields | response_format(format_) | reasoning_fields(think)


def response_format(text: str | None) -> dict[str, Any]:
    """Return the request's fields for `json`, or for a file with a JSON schema. Raise UsageError if it is invalid."""
    if not text:
        return {}
    if text == "json":
        return {"response_format": {"type": "json_object"}}
    try:
        schema = json.loads(read_file(Path(text)))
    except ValueError as error:
        fail(f"{text} is not JSON: {error}")
    described = {"name": "response", "schema": schema, "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": described}}


def reasoning_fields(think: str | None) -> dict[str, Any]:
    """Return the request's fields for a value of `--think`. Raise UsageError if it is invalid."""
    if think is None:
        return {}
    if think in ("true", "false"):
        return {"enable_thinking": think == "true"}
    if think in _EFFORTS:
        return {"enable_thinking": True, "reasoning_effort": think}
    raise click.UsageError(f"--think: '{think}' is not one of true, false, {', '.join(_EFFORTS)}")


def _read_stdin() -> str:
    """Return the text on standard input, if any."""
    try:
        return sys.stdin.read().strip("\n")
    except UnicodeDecodeError:
        fail("Standard input is not UTF-8 text")
