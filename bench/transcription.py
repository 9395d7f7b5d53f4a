"""Transcription through the whole stack against faster-whisper in a process of its own, same model and options.

`make bench BENCH=transcription`. Prints how many times faster than the speech both are, at 1 and at 4 clients.
Contenders take turns, and a ratio is the median of those of neighbouring rounds.
"""

import argparse
import statistics
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from bench.clients import run_clients
from bench.speech import MOONSHINE, package_files
from bench.stack import running_stack
from export.__main__ import cache_folder

MODEL = "whisper-base"
_SECONDS = 44.37
_SPAWN = get_context("spawn")


def _serve_bare(pipe: Connection, folder: Path, parameters: dict[str, str]) -> None:
    """Transcribe the file named and answer the seconds it took, again and again."""
    from faster_whisper import WhisperModel

    model = WhisperModel(str(folder), device="cpu", compute_type=parameters["compute_type"], local_files_only=True)
    while True:
        path = pipe.recv()
        started = time.perf_counter()
        segments, _ = model.transcribe(path, beam_size=int(parameters["beam_size"]), vad_filter=True)
        list(segments)
        pipe.send(time.perf_counter() - started)


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    path = package_files(MOONSHINE) / "two_cities.wav"
    part = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    body = part + path.read_bytes() + b"\r\n--x--\r\n"
    folder = cache_folder() / "model_repository" / MODEL
    config = text_format.Parse((folder / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    ours, theirs = _SPAWN.Pipe()
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    bare = _SPAWN.Process(target=_serve_bare, args=(theirs, folder / "1", parameters), daemon=True)
    bare.start()
    speeds: dict[str, list[float]] = {"faster-whisper": [], "stack, 1 client": [], "stack, 4 clients": []}
    with running_stack([MODEL]) as stack:
        for _ in range(rounds + 1):
            ours.send(str(path))
            speeds["faster-whisper"].append(_SECONDS / ours.recv())
            for clients in (1, 4):
                kind = "multipart/form-data; boundary=x"
                rate = run_clients(stack.port, "/v1/audio/transcriptions", [body] * clients, clients, kind)
                speeds[f"stack, {clients} client{'s' * (clients > 1)}"].append(rate.requests_per_second * _SECONDS)
    bare.kill()
    bare.join()
    for name, values in speeds.items():
        pairs = zip(values[1:], speeds["faster-whisper"][1:], strict=True)  # the first round warms up
        ratio = statistics.median(value / other for value, other in pairs)
        print(f"{name:16} {statistics.median(values[1:]):5.1f} × real time, ÷ faster-whisper = {ratio:.2f}")


if __name__ == "__main__":
    main()
