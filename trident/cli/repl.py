"""The conversation of `trident run MODEL` in a terminal, with Ollama's commands."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from trident.cli.attachments import local_path, prompt_content
from trident.cli.client import ServerError
from trident.cli.conversation import Conversation
from trident.cli.session import CHAT_TASKS

_HELP = """Commands:
  /set parameter NAME VALUE   set a sampling parameter, such as temperature, seed, max_tokens; no VALUE unsets it
  /set system TEXT            set the system message
  /set format json|FILE       respond in JSON, or by the JSON schema in a file; /set noformat ends it
  /set think [low|medium|high]  let a reasoning model reason; /set nothink turns it off
  /set verbose                show timings; /set quiet hides them
  /set nohistory              do not keep messages; /set history keeps them again
  /show                       show the model, the settings and the number of messages
  /load FILE|MODEL            go on with a saved conversation, or with another model of the server
  /save FILE                  save the conversation
  /clear                      delete the messages
  /bye                        leave; also Ctrl-D
  /?                          show this list
Text of several lines: start with \"\"\" and end with \"\"\".
Name an image or audio file in the prompt, or drop it on the terminal, to attach it. Ctrl-C stops a response."""
_PARAMETERS = {
    "temperature": float,
    "top_p": float,
    "top_k": int,
    "min_p": float,
    "seed": int,
    "max_tokens": int,
    "frequency_penalty": float,
    "presence_penalty": float,
    "repetition_penalty": float,
    "stop": str,
}
_OLLAMA_NAMES = {"num_predict": "max_tokens", "repeat_penalty": "repetition_penalty"}
_MAX_HISTORY = 1000
_ENDS = ("/bye", "/exit", "/quit")


class Repl:
    """The loop that reads prompts and commands until the user leaves."""

    def __init__(self, conversation: Conversation, history: Path):
        self._conversation, self._history = conversation, history
        self._commands: dict[str, Callable[[str], None]] = {
            "/set": self._set,
            "/show": self._show,
            "/load": self._load,
            "/save": self._save,
            "/clear": self._clear,
            "/?": self._help,
            "/help": self._help,
        }

    def run(self) -> None:
        """Talk until the user leaves. Errors are shown, and the conversation goes on."""
        readline = self._start_history()
        click.echo(f"{self._conversation.session.model_id}  (/? for help, /bye or Ctrl-D to leave)", err=True)
        try:
            while (text := self._read()) is not None:
                if text.strip() in _ENDS:
                    break
                if text.strip():
                    self._handle(text)
        finally:
            self._save_history(readline)

    def _start_history(self) -> Any:
        """Return the module readline, which edits lines and keeps a history, or None where Python has none."""
        try:
            import readline
        except ImportError:
            return None
        readline.parse_and_bind("set enable-bracketed-paste on")
        try:
            readline.read_history_file(str(self._history))
        except OSError:
            readline.clear_history()  # the first conversation
        return readline

    def _save_history(self, readline: Any) -> None:
        if readline is None:
            return
        try:
            self._history.parent.mkdir(parents=True, exist_ok=True)
            readline.set_history_length(_MAX_HISTORY)
            self._history.touch(mode=0o600)
            readline.write_history_file(str(self._history))
        except OSError as error:
            click.echo(f"The history is not saved: {error}", err=True)

    def _read(self) -> str | None:
        """Return the next prompt, or None at the end of the input. Ctrl-C discards the line."""
        lines: list[str] = []
        while True:
            try:
                line = input("... " if lines else ">>> ")
            except EOFError:
                click.echo()
                return None
            except KeyboardInterrupt:
                click.echo("\nPress Ctrl-D or type /bye to leave.")
                lines = []
                continue
            lines.append(line)
            text = "\n".join(lines)
            if text.lstrip().startswith(('"""', '/set system """')) and text.count('"""') < 2:
                continue
            return re.sub(r'^\s*"""\n?(.*?)\n?"""\s*$', r"\1", text, flags=re.DOTALL)

    def _handle(self, text: str) -> None:
        word, _, rest = text.strip().partition(" ")
        is_command = word in self._commands and ("\n" not in text or text.lstrip().startswith("/set system "))
        if not is_command and re.fullmatch(r"/[a-z?]+", word) and not Path(word).exists():
            click.echo(f"Unknown command '{word}'; /? lists the commands", err=True)
            return
        try:
            if is_command:
                self._commands[word](rest.strip())
            else:
                self._ask(text)
        except (click.ClickException, ServerError, OSError) as error:
            click.echo(f"{getattr(error, 'message', error)}", err=True)
        except KeyboardInterrupt:
            click.echo()

    def _ask(self, text: str) -> None:
        content, paths = prompt_content(text, self._conversation.session.media)
        for path in paths:
            click.echo(f"Added '{path}'", err=True)
        self._conversation.ask(content)
        click.echo()

    def _set(self, text: str) -> None:
        from trident.cli.run import reasoning_fields, response_format

        name, _, value = text.partition(" ")
        conversation, fields = self._conversation, self._conversation.fields
        match name:
            case "parameter":
                self._set_parameter(value)
            case "system":
                conversation.system = value.strip('"').strip("\n") or None
            case "format":
                if not value:
                    raise click.ClickException("Name json, or a file with a JSON schema")
                fields.update(response_format(value))
            case "noformat":
                fields.pop("response_format", None)
            case "think" | "nothink":
                chosen = reasoning_fields((value or "true") if name == "think" else "false")
                fields.pop("reasoning_effort", None)
                fields.update(chosen)
            case "verbose" | "quiet":
                conversation.verbose = name == "verbose"
            case "history" | "nohistory":
                conversation.keeps_history = name == "history"
            case _:
                raise click.ClickException(f"Unknown setting '{name}'; /? lists the settings")

    def _set_parameter(self, text: str) -> None:
        name, _, value = text.partition(" ")
        name, value = _OLLAMA_NAMES.get(name, name), value.strip()
        if name not in _PARAMETERS:
            raise click.ClickException(f"Unknown parameter '{name}'. The parameters are: {', '.join(_PARAMETERS)}")
        if not value:
            self._conversation.fields.pop(name, None)
            return
        try:
            parsed = _PARAMETERS[name](value)
            if isinstance(parsed, float) and not math.isfinite(parsed):
                raise ValueError
        except ValueError:
            raise click.ClickException(f"'{value}' is not a valid value of {name}") from None
        self._conversation.fields[name] = parsed

    def _show(self, _: str) -> None:
        conversation, model = self._conversation, self._conversation.session.model
        capabilities = [model.get("task", "chat"), *model.get("capabilities", ())]
        click.echo(f"model     {model['id']} ({', '.join(capabilities)})")
        click.echo(f"server    {conversation.session.server.url}")
        click.echo(f"system    {conversation.system or '-'}")
        for name, value in conversation.fields.items():
            click.echo(f"{name:9} {json.dumps(value, ensure_ascii=False)}")
        click.echo(f"messages  {len(conversation.messages)}")

    def _save(self, name: str) -> None:
        path = self._path(name)
        conversation = self._conversation
        content = {
            "model": conversation.session.model_id,
            "system": conversation.system,
            "fields": conversation.fields,
            "messages": conversation.messages,
        }
        try:
            path.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
        except OSError as error:
            raise click.ClickException(f"{path} cannot be written: {error.strerror}") from None
        click.echo(f"Saved {len(conversation.messages)} messages to {path}")

    def _load(self, name: str) -> None:
        path, conversation = self._path(name), self._conversation
        if not path.exists() and (model := conversation.session.server.find(name)):
            if model.get("task", "chat") not in CHAT_TASKS:
                raise click.ClickException(f"{model['id']} is not a chat model")
            conversation.session.model = model
            click.echo(f"Switched to {model['id']}")
            return
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            system, fields, messages = content["system"], dict(content["fields"]), list(content["messages"])
        except OSError as error:
            raise click.ClickException(f"{path} cannot be read: {error.strerror}") from None
        except (ValueError, KeyError, TypeError):
            raise click.ClickException(f"{path} is not a saved conversation") from None
        conversation.system, conversation.fields, conversation.messages = system, fields, messages
        click.echo(f"Loaded {len(messages)} messages from {path}")

    def _path(self, name: str) -> Path:
        if not name:
            raise click.ClickException("Name a file")
        return local_path(name)

    def _clear(self, _: str) -> None:
        self._conversation.messages.clear()
        click.echo("Cleared the conversation")

    def _help(self, _: str) -> None:
        click.echo(_HELP)
