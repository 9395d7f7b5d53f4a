"""AHA's `run -m MODEL -i INPUT`: one request to a model of any task, and its output as text or files."""

import http.client
import json
import re
import time
import urllib.request
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import click

from trident.cli import requests
from trident.cli.attachments import content_part, is_file, local_path, media_kind, read_file, read_text, save_file
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
        task = opened.model.get("task", "chat")
        if len(outputs) > (len(inputs) if task == "background_removal" else 1):
            raise click.UsageError("There are more outputs (-o) than results")
        send = _TASKS.get(task, _chat)
        click.echo(f"Time elapsed in load model is: {opened.load_seconds:.2f}s")
        started = time.monotonic()
        result = send(opened, list(inputs), [Path(output).suffix.lower() for output in outputs])
        click.echo(f"Time elapsed in generate is: {time.monotonic() - started:.2f}s")
    if isinstance(result, str):
        click.echo(f"Result: {result}")
        result = _Files([result.encode() + b"\n"] if outputs else [], ".txt")
    _write(result, outputs, _prefix(opened.model_id))


def _write(files: "_Files", outputs: Sequence[str], prefix: str) -> None:
    """Write files to the given paths, or to PREFIX_SECONDS.SUFFIX with a number if there are several."""
    stem = f"{prefix}_{int(time.time())}"
    for index, content in enumerate(files.contents):
        number = f"_{index}" if len(files.contents) > 1 else ""
        path = Path(outputs[index]) if index < len(outputs) else Path(f"{stem}{number}{files.suffix}")
        click.echo(f"Output saved to: {save_file(path, content)}")


def _prefix(model_id: str) -> str:
    """Return the beginning of the names of output files, such as `voxcpm` or `rmbg`, as AHA chooses them."""
    match = re.match(r"[a-z]+", model_id.rpartition("/")[2].lower())
    return match[0] if match else "output"


class _Files:
    """The contents of output files, all with one suffix."""

    def __init__(self, contents: Sequence[bytes], suffix: str):
        self.contents, self.suffix = contents, suffix


def _chat(opened: Session, inputs: list[str], _: list[str]) -> str:
    files = [each for each in inputs if _is_media(each) or each.startswith(_REMOTE)]
    text = "\n\n".join(_text(each) for each in inputs if each not in files)
    parts = [content_part(each) for each in files]
    content = [*([{"type": "text", "text": text}] if text else []), *parts] if parts else text
    return requests.answer_text(requests.chat(opened, [{"role": "user", "content": content}]))


def _transcribe(opened: Session, inputs: list[str], _: list[str]) -> str:
    recordings = [each for each in inputs if _is_media(each) or each.startswith(_REMOTE) or is_file(each)]
    if len(recordings) != 1:
        raise click.UsageError("Name one audio file with -i")
    prompt = " ".join(_text(each) for each in inputs if each not in recordings)
    with TemporaryDirectory() as folder:
        file = _local(recordings[0], Path(folder))
        return requests.transcribe(opened, file, "text", **({"prompt": prompt} if prompt else {})).strip()


def _speak(opened: Session, inputs: list[str], suffixes: list[str]) -> _Files:
    text, references = _text(inputs[0]), [each for each in inputs[1:] if _is_media(each)]
    words = [_text(each) for each in inputs[1:] if each not in references]
    if len(references) > 1 or len(words) > 1 or (words and not references):
        raise click.UsageError("The inputs of a speech model are: TEXT [RECORDING [WORDS OF THE RECORDING]]")
    if references:
        _require_suffixes(suffixes, (".wav",))
        with TemporaryDirectory() as folder:
            file = _local(references[0], Path(folder))
            return _Files([requests.clone_voice(opened, text, file, words[0] if words else None)], ".wav")
    _require_suffixes(suffixes, [f".{name}" for name in requests.AUDIO_FORMATS])
    kind = suffixes[0][1:] if suffixes else "wav"
    return _Files([b"".join(requests.speak(opened, text, kind))], ".wav")


def _cut_out(opened: Session, inputs: list[str], suffixes: list[str]) -> _Files:
    _require_suffixes(suffixes, (".png", ".webp"))
    kinds = [suffix[1:] for suffix in suffixes] + ["png"] * (len(inputs) - len(suffixes))
    with TemporaryDirectory() as folder:
        files = [_local(each, Path(folder)) for each in inputs]
        images = [requests.remove_background(opened, *each) for each in zip(files, kinds, strict=True)]
        return _Files(images, ".png")


def _embed(opened: Session, inputs: list[str], _: list[str]) -> str:
    vectors = requests.embed(opened, [_text(each) for each in inputs])
    return json.dumps(vectors if len(vectors) > 1 else vectors[0])


def _rerank(opened: Session, inputs: list[str], _: list[str]) -> str:
    if len(inputs) < 2:
        raise click.UsageError("The inputs of a reranker are: QUERY DOCUMENTS (separated by |||, or a file)")
    documents = []
    for each in inputs[1:]:
        if each.startswith("file://") or is_file(each):
            documents += [line for line in read_text(local_path(each)).splitlines() if line.strip()]
        else:
            documents += [document.strip() for document in each.split(_SEPARATOR)]
    return json.dumps(requests.rerank(opened, _text(inputs[0]), documents), ensure_ascii=False)


def _make_images(opened: Session, inputs: list[str], suffixes: list[str]) -> _Files:
    _require_suffixes(suffixes, requests.IMAGE_FORMATS)
    prompt, kind = "\n\n".join(map(_text, inputs)), requests.IMAGE_FORMATS[suffixes[0] if suffixes else ".png"]
    return _Files(requests.make_images(opened, prompt, output_format=kind), ".png")


_TASKS: dict[str, Callable[[Session, list[str], list[str]], "str | _Files"]] = {
    "chat": _chat,
    "ocr": _chat,
    "transcription": _transcribe,
    "speech": _speak,
    "background_removal": _cut_out,
    "embedding": _embed,
    "rerank": _rerank,
    "image_generation": _make_images,
}


def _require_suffixes(suffixes: Collection[str], allowed: Collection[str]) -> None:
    """Raise UsageError if an output file has none of these suffixes."""
    if any(suffix not in allowed for suffix in suffixes):
        raise click.UsageError(f"-o: the output must end with one of {', '.join(allowed)}")


def _text(given: str) -> str:
    """Return an input text, which file:// reads from a file."""
    return read_text(local_path(given)).strip("\n") if given.startswith("file://") else given


def _is_media(given: str) -> bool:
    """Return whether an input is a media file and not a text that ends with the name of one."""
    return media_kind(given) is not None and (given.startswith("file://") or " " not in given or is_file(given))


def _local(given: str, folder: Path) -> Path:
    """Return the path of an input file, after downloading it to `folder` if it is a URL."""
    if not given.startswith(_REMOTE):
        path = local_path(given)
        read_file(path)
        return path
    target = folder / f"file{len(list(folder.iterdir()))}{Path(urlsplit(given).path).suffix}"
    try:
        with urllib.request.urlopen(given, timeout=_DOWNLOAD_SECONDS) as response:
            content = response.read(_MAX_DOWNLOAD_BYTES + 1)
    except (OSError, ValueError, http.client.HTTPException) as error:
        fail(f"{given} cannot be downloaded: {getattr(error, 'reason', error)}")
    if len(content) > _MAX_DOWNLOAD_BYTES:
        fail(f"{given} is larger than {_MAX_DOWNLOAD_BYTES / 1e6:.0f} MB")
    target.write_bytes(content)
    return target
