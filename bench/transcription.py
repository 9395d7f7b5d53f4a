"""Benchmark of transcription: compares Trident with the faster-whisper library and with faster-whisper-server.

Run it with `make bench BENCH=transcription`. All three use the same weights and options. Trident is also measured with
its OpenVINO engine, which uses greedy decoding instead of beam search. Prints speeds as multiples of real time, with 1
and with 4 clients. The contenders take turns in each round. Each printed ratio is a contender's speed divided by the
speed of the faster-whisper library in the same round, as the median over all rounds except the first.
"""

import argparse
import json
import subprocess
import tempfile
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.clients import run_clients
from bench.contest import Rival, Work, print_ratios, timed
from bench.encoder_rivals import wait_for
from contract.paths import CHECKOUT, default_cache, default_model_repository, latest_version
from tests.support.recordings import MOONSHINE, package_files
from tests.support.stack import free_ports, read_config, running_stack

MODEL, OPENVINO = "whisper-base", "whisper-base-openvino"
_SECONDS = 44.37
_CONTENT_TYPE = "multipart/form-data; boundary=x"


def _bare(folder: Path, parameters: dict[str, str]) -> Work:
    from faster_whisper import WhisperModel

    model = WhisperModel(str(folder), device="cpu", compute_type=parameters["compute_type"], local_files_only=True)

    def transcribe(path: str) -> None:
        segments, _ = model.transcribe(path, beam_size=int(parameters["beam_size"]), vad_filter=True)
        list(segments)

    return timed(transcribe)


def _repeat(source: Path, target: Path, times: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(source)) as recording, wave.open(str(target), "wb") as long:
        long.setparams(recording.getparams())
        long.writeframes(recording.readframes(recording.getnframes()) * times)


@contextmanager
def _server(folder: Path, parameters: dict[str, str]) -> Iterator[int]:
    """Run faster-whisper-server with the options of Trident's model, and yield its port."""
    (port,) = free_ports(1)
    model = {"compute_type": parameters["compute_type"], "device": "cpu", "local_files_only": True}
    transcribe = {"beam_size": int(parameters["beam_size"]), "vad_filter": True}
    entry = {"name": "whisper-1", "path": str(folder), "model_options": model, "transcribe_options": transcribe}
    with tempfile.TemporaryDirectory() as temporary:
        config = Path(temporary) / "config.yaml"
        config.write_text(json.dumps({"models": [entry]}), encoding="utf-8")  # JSON is valid YAML
        command = [str(CHECKOUT / ".venv-rivals" / "bin" / "faster-whisper-server"), "--config", str(config)]
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            wait_for(process, port, "faster-whisper-server")
            yield port
        finally:
            process.kill()
            process.wait()


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--times", type=int, default=1, help="how many times to repeat the 44-second recording")
    parser.add_argument(
        "--single-client", action="store_true", help="one client, no faster-whisper-server (for long files)"
    )
    arguments = parser.parse_args()
    rounds, length = arguments.rounds, _SECONDS * arguments.times
    path = default_cache() / "bench" / f"two_cities-{arguments.times}.wav"
    _repeat(package_files(MOONSHINE) / "two_cities.wav", path, arguments.times)
    part = b'--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
    file = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    folder = default_model_repository() / MODEL
    parameters = {key: value.string_value for key, value in read_config(folder).parameters.items()}
    speeds: dict[str, list[float]] = {"faster-whisper": []}
    with (
        running_stack([MODEL, OPENVINO]) as stack,
        _server(latest_version(folder), parameters) as rival,
        Rival(_bare, latest_version(folder), parameters) as bare,
    ):
        servers = {"stack": (stack.port, MODEL), "stack, OpenVINO": (stack.port, OPENVINO), "fw-server": (rival, "")}
        if arguments.single_client:
            del servers["fw-server"]
        for _ in range(rounds + 1):
            speeds["faster-whisper"].append(length / bare.call([str(path)]))
            for name, (port, model) in servers.items():
                field = part % (b"model", model.encode()) if model else b""
                body = field + file + path.read_bytes() + b"\r\n--x--\r\n"
                for clients in (1,) if arguments.single_client else (1, 4):
                    rate = run_clients(port, "/v1/audio/transcriptions", [body] * clients, clients, _CONTENT_TYPE)
                    label = f"{name}, {clients} client{'s' * (clients > 1)}"
                    speeds.setdefault(label, []).append(rate.requests_per_second * length)
    print_ratios(speeds, ["faster-whisper"], "× real time")


if __name__ == "__main__":
    main()
