"""AHA's `run -m MODEL -i INPUT`: one request to a model of any task, and its output as text or files."""

import json
import re
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from trident.cli import requests
from trident.cli.attachments import content_part, local_path, media_kind, read_file
from trident.cli.model_files import ModelFiles
from trident.cli.options import fail
from trident.cli.session import Session, session

_SEPARATOR = "|||"
_DOWNLOAD_SECONDS, _MAX_DOWNLOAD_BYTES = 60, 100_000_000
_REMOTE = ("http://", "https://")


def run_once(
    model: str,
    inputs: Sequence[str],
    outputs: Sequence[str],
    files: ModelFiles,
    options: list[str],
    flags: dict[str, Any],
) -> None:
    """Send the inputs to a model, and print the result, or the names of the files with it. Raises ServerError."""
    name, more = files.apply(model)
    with session(flags, name, options=more + options) as opened:
        click.echo(f"Time elapsed in load model is: {opened.load_seconds:.2f}s")
        started = time.monotonic()
        result = _TASKS[opened.model["task"]](opened, list(inputs))
        click.echo(f"Time elapsed in generate is: {time.monotonic() - started:.2f}s")
    if isinstance(result, str):
        _show(result, outputs)
    else:
        _write(result, outputs, _prefix(opened.model_id))


def _show(text: str, outputs: Sequence[str]) -> None:
    click.echo(f"Result: {text}")
    for output in outputs[:1]:
        _save(Path(output), text.encode() + b"\n")


def _write(contents: "_Files", outputs: Sequence[str], prefix: str) -> None:
    """Write files to the given paths, or to PREFIX_SECONDS.SUFFIX with a number if there are several."""
    stem = f"{prefix}_{int(time.time())}"
    for index, content in enumerate(contents.contents):
        number = f"_{index}" if len(contents.contents) > 1 else ""
        path = Path(outputs[index]) if index < len(outputs) else Path(f"{stem}{number}{contents.suffix}")
        _save(path, content)


def _save(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        fail(f"{path} cannot be written: {error.strerror}")
    click.echo(f"Output saved to: {path}")


def _prefix(model_id: str) -> str:
    """Return the beginning of the names of output files, such as `voxcpm` or `rmbg`, as AHA chooses them."""
    match = re.match(r"[a-z]+", model_id.rpartition("/")[2].lower())
    return match[0] if match else "output"


class _Files:
    """The contents of output files, all with one suffix."""

    def __init__(self, contents: Sequence[bytes], suffix: str):
        self.contents, self.suffix = contents, suffix


def _chat(opened: Session, inputs: list[str]) -> str:
    texts = [_text(each) for each in inputs if media_kind(each) is None and not each.startswith(_REMOTE)]
    files = [content_part(each) for each in inputs if media_kind(each) or each.startswith(_REMOTE)]
    content: Any = "\n\n".join(texts)
    if files:
        content = [*([{"type": "text", "text": content}] if content else []), *files]
    return requests.answer_text(requests.chat(opened, [{"role": "user", "content": content}]))


def _transcribe(opened: Session, inputs: list[str]) -> str:
    recordings = [each for each in inputs if media_kind(each) or each.startswith(_REMOTE) or _is_file(each)]
    if len(recordings) != 1:
        raise click.UsageError("Name one audio file with -i")
    prompt = " ".join(_text(each) for each in inputs if each not in recordings)
    with TemporaryDirectory() as folder:
        file = _local(recordings[0], Path(folder))
        return requests.transcribe(opened, file, "text", **({"prompt": prompt} if prompt else {})).strip()


def _speak(opened: Session, inputs: list[str]) -> _Files:
    text, references = _text(inputs[0]), [each for each in inputs[1:] if media_kind(each) == "audio"]
    words = [_text(each) for each in inputs[1:] if each not in references]
    if len(references) > 1 or len(words) > 1 or (words and not references):
        raise click.UsageError("The inputs of a speech model are: TEXT [RECORDING [WORDS OF THE RECORDING]]")
    if references:
        with TemporaryDirectory() as folder:
            file = _local(references[0], Path(folder))
            return _Files([requests.clone_voice(opened, text, file, words[0] if words else None)], ".wav")
    return _Files([b"".join(requests.speak(opened, text, "wav"))], ".wav")


def _cut_out(opened: Session, inputs: list[str]) -> _Files:
    with TemporaryDirectory() as folder:
        return _Files(
            [requests.remove_background(opened, _local(each, Path(folder))) for each in inputs],
            ".png",
        )


def _embed(opened: Session, inputs: list[str]) -> str:
    vectors = requests.embed(opened, [_text(each) for each in inputs])
    return json.dumps(vectors if len(vectors) > 1 else vectors[0])


def _rerank(opened: Session, inputs: list[str]) -> str:
    if len(inputs) < 2:
        raise click.UsageError("The inputs of a reranker are: QUERY DOCUMENTS (separated by |||, or a file)")
    documents = []
    for each in inputs[1:]:
        if each.startswith("file://") or _is_file(each):
            documents += [line for line in _text(f"file://{local_path(each)}").splitlines() if line.strip()]
        else:
            documents += [document.strip() for document in each.split(_SEPARATOR)]
    return json.dumps(requests.rerank(opened, _text(inputs[0]), documents), ensure_ascii=False)


def _make_images(opened: Session, inputs: list[str]) -> _Files:
    return _Files(requests.make_images(opened, "\n\n".join(map(_text, inputs))), ".png")


_TASKS: dict[str, Callable[[Session, list[str]], "str | _Files"]] = {
    "chat": _chat,
    "ocr": _chat,
    "transcription": _transcribe,
    "speech": _speak,
    "background_removal": _cut_out,
    "embedding": _embed,
    "rerank": _rerank,
    "image_generation": _make_images,
}


def _text(given: str) -> str:
    """Return an input text, which file:// reads from a file."""
    if not given.startswith("file://"):
        return given
    try:
        return read_file(local_path(given)).decode().strip("\n")
    except UnicodeDecodeError:
        fail(f"{given} is not UTF-8 text")


def _is_file(given: str) -> bool:
    try:
        return local_path(given).is_file()
    except OSError:  # a text that is too long for a file's name
        return False


def _local(given: str, folder: Path) -> Path:
    """Return the path of an input file, after downloading it to `folder` if it is a URL."""
    if not given.startswith(_REMOTE):
        path = local_path(given)
        read_file(path)
        return path
    target = folder / (Path(given.partition("?")[0]).name or "file")
    try:
        with urllib.request.urlopen(given, timeout=_DOWNLOAD_SECONDS) as response:
            content = response.read(_MAX_DOWNLOAD_BYTES + 1)
    except (OSError, ValueError) as error:
        fail(f"{given} cannot be downloaded: {getattr(error, 'reason', error)}")
    if len(content) > _MAX_DOWNLOAD_BYTES:
        fail(f"{given} is larger than {_MAX_DOWNLOAD_BYTES / 1e6:.0f} MB")
    target.write_bytes(content)
    return target
