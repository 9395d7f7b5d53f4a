"""The `trident transcribe`, `speak`, `cutout` and `image` commands."""

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click

from trident.cli import requests
from trident.cli.attachments import media_kind, read_stdin, save_file
from trident.cli.client import ServerError, failures_reported
from trident.cli.options import GroupedCommand, fail, is_terminal, model_option
from trident.cli.session import session, session_options

_FILE = click.Path(path_type=Path)
_SUFFIXES = {"text": ".txt", "json": ".json", "verbose_json": ".json", "srt": ".srt", "vtt": ".vtt"}


@click.command(cls=GroupedCommand)
@click.argument("paths", nargs=-1, required=True, metavar="FILE|FOLDER...", type=_FILE)
@model_option("transcription model (default: the server's)")
@click.option("--format", "format_", type=click.Choice(list(_SUFFIXES)), default="text", help="format (default: text)")
@click.option("--language", metavar="LANGUAGE", help="language of the speech, such as de or German")
@click.option("--prompt", metavar="TEXT", help="words that may occur, for their spelling")
@click.option("-o", "--output", type=_FILE, metavar="FOLDER", help="write a file for each recording to this folder")
@click.option("--json", "as_json", is_flag=True, help="print an object for each file")
@session_options
def transcribe(
    paths: tuple[Path, ...],
    model: str | None,
    format_: str,
    language: str | None,
    prompt: str | None,
    output: Path | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Print the words spoken in audio files.

    A FOLDER selects all audio files in it.

    A file that cannot be transcribed is reported and skipped; the exit code is then 1.

    \b
    Examples:
      trident transcribe interview.mp3
      trident transcribe talk.wav --format srt > talk.srt
      trident transcribe recordings/ -o transcripts/
    """
    if as_json and output:
        raise click.UsageError("Use only one of --json and --output")
    files = list(_media_files(paths, "audio"))
    _require_distinct(files if output else [])
    fields = {key: value for key, value in {"language": language, "prompt": prompt}.items() if value}
    failed = 0
    with failures_reported(), session(flags, model, "transcription") as opened:
        for file in _counted(files):
            try:
                text = requests.transcribe(opened, file, format_, **fields)
            except (ServerError, click.ClickException) as error:
                failed += 1
                _report(file, error)
                continue
            if output:
                _print(save_file(output / f"{file.stem}{_SUFFIXES[format_]}", text.rstrip("\n").encode() + b"\n"))
            elif as_json:
                found = json.loads(text) if "json" in format_ else {"text": text.strip()}
                _print(json.dumps({"file": click.format_filename(file), **found}, ensure_ascii=False))
            else:
                heading = f"{click.format_filename(file)}:\n" if len(files) > 1 and format_ == "text" else ""
                _print(heading + text.strip("\n"))
    if failed:
        fail(f"{failed} of {len(files)} files could not be transcribed")


@click.command(cls=GroupedCommand)
@click.argument("text", required=False)
@click.option("-o", "--output", metavar="FILE", required=True, help="audio file to write, or - for standard output")
@model_option("speech model (default: the server's)")
@click.option("--voice", metavar="NAME", help="voice of the model")
@click.option("--speed", type=float, metavar="N", help="multiple of the normal speed, from 0.25 to 4")
@click.option("--reference", type=_FILE, metavar="FILE", help="recording of a voice to clone, with consent")
@click.option("--reference-text", metavar="TEXT", help="words spoken in --reference, if the model needs them")
@session_options
def speak(
    text: str | None,
    output: str,
    model: str | None,
    voice: str | None,
    speed: float | None,
    reference: Path | None,
    reference_text: str | None,
    **flags: Any,
) -> None:
    """Speak TEXT, or standard input, into an audio file.

    The extension of the file selects the format: mp3, opus, aac, flac, wav, pcm.

    \b
    Examples:
      trident speak "Good morning." -o morning.mp3
      trident speak -o - < story.txt | aplay
    """
    spoken = text if text is not None else read_stdin()
    if not spoken.strip():
        raise click.UsageError("Missing argument 'TEXT'")
    kind = "wav" if output == "-" else Path(output).suffix[1:].lower()
    if kind not in requests.AUDIO_FORMATS:
        raise click.UsageError(f"--output: '{output}' must end with one of {', '.join(requests.AUDIO_FORMATS)}")
    if reference and (kind != "wav" or voice or speed):
        raise click.UsageError("--reference writes a WAV file, and excludes --voice and --speed")
    if reference_text and not reference:
        raise click.UsageError("--reference-text requires --reference")
    fields = {key: value for key, value in {"voice": voice, "speed": speed}.items() if value is not None}
    with failures_reported(), session(flags, model, "speech") as opened:
        if reference:
            audio: Iterable[bytes] = [requests.clone_voice(opened, spoken, reference, reference_text)]
        else:
            audio = requests.speak(opened, spoken, kind, **fields)
        if output == "-":
            for chunk in audio:
                sys.stdout.buffer.write(chunk)
                sys.stdout.buffer.flush()
        else:
            click.echo(save_file(Path(output), b"".join(audio)))


@click.command(cls=GroupedCommand)
@click.argument("paths", nargs=-1, required=True, metavar="FILE|FOLDER...", type=_FILE)
@click.option("-o", "--output", type=_FILE, metavar="FOLDER", required=True, help="folder for the new images")
@model_option("background removal model (default: the server's)")
@click.option("--format", "format_", type=click.Choice(["png", "webp"]), default="png", help="format (default: png)")
@click.option("--refine", is_flag=True, help="align the edge of the foreground with the edges in the image")
@session_options
def cutout(paths: tuple[Path, ...], output: Path, model: str | None, format_: str, refine: bool, **flags: Any) -> None:
    """Remove the background of images.

    A FOLDER selects all images in it.

    A file that cannot be processed is reported and skipped; the exit code is then 1.

    \b
    Example:
      trident cutout photo.jpg portraits/ -o cutouts/
    """
    files = list(_media_files(paths, "image"))
    _require_distinct(files)
    if same := next((file for file in files if file.resolve() == (output / f"{file.stem}.{format_}").resolve()), None):
        raise click.UsageError(f"'{same}' would be overwritten; choose another folder with --output")
    failed = 0
    with failures_reported(), session(flags, model, "background_removal") as opened:
        for file in _counted(files):
            try:
                content = requests.remove_background(opened, file, format_, refine)
            except (ServerError, click.ClickException) as error:
                failed += 1
                _report(file, error)
                continue
            _print(save_file(output / f"{file.stem}.{format_}", content))
    if failed:
        fail(f"{failed} of {len(files)} files could not be processed")


@click.command(cls=GroupedCommand)
@click.argument("prompt")
@click.option("-o", "--output", type=_FILE, metavar="FILE", required=True, help="image file: .png, .jpg or .webp")
@model_option("image generation model (default: the server's)")
@click.option("-n", "number", type=click.IntRange(1, 10), default=1, metavar="N", help="number of images (default: 1)")
@click.option("--size", metavar="WIDTHxHEIGHT", help="size in pixels")
@click.option("--steps", type=int, metavar="N", help="number of steps")
@click.option("--seed", type=int, metavar="N", help="seed")
@click.option("--negative-prompt", metavar="TEXT", help="what the image should not show")
@session_options
def image(
    prompt: str,
    output: Path,
    model: str | None,
    number: int,
    size: str | None,
    steps: int | None,
    seed: int | None,
    negative_prompt: str | None,
    **flags: Any,
) -> None:
    """Make an image from PROMPT. Several images get numbers in their names.

    \b
    Example:
      trident image "a lighthouse at dawn" -m stable-diffusion-1.5 -o lighthouse.png --size 512x512
    """
    if (kind := requests.IMAGE_FORMATS.get(output.suffix.lower())) is None:
        raise click.UsageError(f"--output: '{output}' must end with one of {', '.join(requests.IMAGE_FORMATS)}")
    given = {"size": size, "num_inference_steps": steps, "seed": seed, "negative_prompt": negative_prompt}
    fields = {key: value for key, value in given.items() if value is not None}
    with failures_reported(), session(flags, model, "image_generation") as opened:
        images = requests.make_images(opened, prompt, n=number, output_format=kind, **fields)
    for index, content in enumerate(images):
        name = f"{output.stem}_{index}{output.suffix}" if len(images) > 1 else output.name
        click.echo(save_file(output.with_name(name), content))


def _media_files(paths: Iterable[Path], kind: str) -> Iterator[Path]:
    """Yield the files, and those of this kind in the folders. Raise UsageError if a path does not exist."""
    for path in paths:
        if path.is_dir():
            found = sorted(each for each in path.iterdir() if each.is_file() and media_kind(each.name) == kind)
            if not found:
                raise click.UsageError(f"'{path}' has no {kind} files")
            yield from found
        elif path.is_file():
            yield path
        else:
            raise click.UsageError(f"'{path}' does not exist")


def _require_distinct(files: list[Path]) -> None:
    """Raise UsageError if two files would be written under the same name."""
    seen: dict[str, Path] = {}
    for file in files:
        if (other := seen.setdefault(file.stem, file)) is not file:
            raise click.UsageError(f"'{other}' and '{file}' would both be written as '{file.stem}'")


def _counted(files: list[Path]) -> Iterator[Path]:
    """Yield the files and, if there are several, show the progress on standard error."""
    has_terminal = is_terminal(sys.stderr)
    try:
        for number, file in enumerate(files, 1):
            if len(files) > 1:
                text = f"{number}/{len(files)} {click.format_filename(file)}"
                click.echo(f"\r\x1b[K{text}" if has_terminal else text, nl=not has_terminal, err=True)
            yield file
    finally:
        _clear_progress()


def _clear_progress() -> None:
    if is_terminal(sys.stderr):
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()


def _print(text: str, *, err: bool = False) -> None:
    """Print a result in place of the progress."""
    _clear_progress()
    click.echo(text, err=err)


def _report(file: Path, error: ServerError | click.ClickException) -> None:
    """Report a file that cannot be read, or that the server rejects. Errors that concern all files are raised again."""
    if isinstance(error, ServerError) and error.status in (0, 401, 403, 404):
        raise error
    _print(f"{click.format_filename(file)}: {getattr(error, 'message', error)}", err=True)
