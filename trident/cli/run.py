"""The `trident run` command: a conversation in the terminal, one request, or AHA's form of it."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from trident.cli.attachments import is_file, local_path, prompt_content, read_stdin, read_text
from trident.cli.client import failures_reported
from trident.cli.model_files import ModelFiles, model_file_options
from trident.cli.options import (
    GroupedCommand,
    complete_model,
    export_options,
    is_terminal,
    load_command_settings,
    model_option,
    model_options,
)
from trident.cli.session import CHAT_TASKS, session, session_options

_THINK = ("true", "false", "low", "medium", "high")
# What does not apply to one request with -m.
_CHAT_OPTIONS = (
    "system",
    "format_",
    "think",
    "hidethinking",
    "temperature",
    "seed",
    "max_tokens",
    "verbose",
    "as_json",
)


class RunCommand(GroupedCommand):
    """A command whose option `--think` has a value only after an equals sign, as Ollama's does."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments."""
        end = args.index("--") if "--" in args else len(args)
        options = ["--think=true" if word == "--think" else word for word in args[:end]]
        return super().parse_args(context, options + args[end:])


@click.command(cls=RunCommand)
@click.argument("model", required=False, shell_complete=complete_model)
@click.argument("prompt", nargs=-1)
@model_option("model for one request, of any task, with -i", "named")
@click.option("-i", "--input", "inputs", multiple=True, metavar="TEXT|FILE|URL", help="input for -m; repeatable")
@click.option("-o", "--output", "outputs", multiple=True, metavar="FILE", help="file for the output of -m; repeatable")
@click.option("--system", metavar="TEXT", help="system message")
@click.option("--format", "format_", metavar="json|FILE", help="respond in JSON, or by the JSON schema in a file")
@click.option(
    "--think",
    type=click.Choice(_THINK),
    help="whether, and how much, a reasoning model reasons; --think is --think=true",
)
@click.option("--hidethinking", is_flag=True, help="do not show the reasoning")
@click.option("--temperature", type=float, metavar="N", help="sampling temperature")
@click.option("--seed", type=int, metavar="N", help="seed of the sampling")
@click.option("--max-tokens", type=int, metavar="N", help="maximum tokens of a response")
@click.option("--verbose", is_flag=True, help="show the times and the numbers of tokens after a response")
@click.option("--json", "as_json", is_flag=True, help="print the whole response as JSON")
@click.option("--nowordwrap", is_flag=True, hidden=True, help="no effect: lines are never wrapped")
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
    nowordwrap: bool,
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
      trident run qwen2.5-coder-0.5b      # a conversation; /? lists its commands
      git diff | trident run qwen2.5-coder-0.5b "Write a commit message"
      trident run qwen3-vl-2b "What is in ./photo.jpg?"
      trident run -m whisper-base -i speech.wav
      trident run -m hibari -i "Good morning" -o morning.wav
    """
    files = ModelFiles.from_flags(flags)
    options = export_options(mmproj, lora, trust_remote_code, force)
    if named:
        _reject_with_m(bool(model or prompt), inputs)
        from trident.cli.one_request import run_once

        with failures_reported():
            run_once(named, inputs, outputs, files, options, flags)
        return
    if model is None:
        raise click.UsageError("Missing argument 'MODEL'. See `trident list`")
    if inputs or outputs:
        raise click.UsageError(f"{'-i' if inputs else '-o'} requires -m")
    if as_json and (verbose or hidethinking):
        raise click.UsageError("--json prints the whole response, and excludes --verbose and --hidethinking")
    fields = _fields(format_, think, temperature=temperature, seed=seed, max_tokens=max_tokens)
    words, piped = " ".join(prompt), read_stdin().strip("\n")
    is_conversation = not (words or piped) and is_terminal(sys.stdin) and is_terminal(sys.stdout)
    if is_conversation and as_json:
        raise click.UsageError("--json requires a prompt")
    if not (words or piped or is_conversation):
        raise click.UsageError("The prompt is empty")
    name, more = files.apply(model)
    with failures_reported(), session(flags, name, *CHAT_TASKS, options=more + options) as opened:
        from trident.cli.conversation import Conversation

        conversation = Conversation(opened, system, fields, verbose=verbose, hides_reasoning=hidethinking)
        if is_conversation:
            from trident.cli.repl import Repl

            Repl(conversation, load_command_settings(flags).data / "prompt_history").run()
            return
        content = _content(words, piped, opened.media)
        if as_json:
            click.echo(json.dumps(conversation.ask_whole(content), ensure_ascii=False, indent=2))
        else:
            conversation.ask(content)


def _content(words: str, piped: str, media: list[str]) -> Any:
    """Return the content of a message: the prompt, the files that it names, and the text from a pipe."""
    content, paths = prompt_content(words, media)
    if not paths:
        return "\n\n".join(filter(None, (words, piped)))
    return [*content, {"type": "text", "text": piped}] if piped else content


def _reject_with_m(has_arguments: bool, inputs: tuple[str, ...]) -> None:
    """Raise UsageError if the arguments do not fit one request with `-m`."""
    context = click.get_current_context()
    if has_arguments:
        raise click.UsageError("Name the model either as MODEL or with -m")
    if not inputs:
        raise click.UsageError("Missing option '-i' / '--input'")
    for parameter in context.command.params:
        value = context.params[str(parameter.name)]
        if parameter.name in _CHAT_OPTIONS and value is not None and value is not False:
            raise click.UsageError(f"{parameter.opts[0]} does not apply to -m")


def _fields(format_: str | None, think: str | None, **sampling: Any) -> dict[str, Any]:
    fields = {name: value for name, value in sampling.items() if value is not None}
    return fields | response_format(format_) | reasoning_fields(think)


def response_format(text: str | None) -> dict[str, Any]:
    """Return the request's fields for `json`, or for a file with a JSON schema. Raise UsageError if it is invalid."""
    if not text:
        return {}
    if text == "json":
        return {"response_format": {"type": "json_object"}}
    if not is_file(text):
        raise click.UsageError(f"--format: '{text}' is neither json nor a file with a JSON schema")
    try:
        schema = json.loads(read_text(local_path(text)))
    except ValueError as error:
        raise click.UsageError(f"--format: {text} is not JSON: {error}") from None
    described = {"name": "response", "schema": schema, "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": described}}


def reasoning_fields(think: str | None) -> dict[str, Any]:
    """Return the request's fields for a value of `--think`. Raise UsageError if it is invalid."""
    if think is None:
        return {}
    if think in ("true", "false"):
        return {"enable_thinking": think == "true"}
    if think not in _THINK:
        raise click.UsageError(f"'{think}' is not one of {', '.join(_THINK)}")
    return {"enable_thinking": True, "reasoning_effort": think}
