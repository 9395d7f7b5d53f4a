"""Latency and throughput of each model and endpoint by concurrency, as NVIDIA's perf_analyzer and AIPerf measure them.

`make perf` writes docs/benchmarks/perf.csv, perf.json and perf.png. perf_analyzer sends requests to Triton itself, and
JSON to the API; `trident bench serve` sends files; AIPerf streams chats. The prompts differ, so that none is answered
from the prefix cache.
"""

import argparse
import base64
import csv
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from contract.paths import CHECKOUT, default_model_repository
from frontend.settings import Settings
from frontend.triton.tensors import pack_strings
from tests.support.debian import unpacked
from tests.support.images import composite, encode_image
from tests.support.recordings import AUDIOEVAL, package_files
from tests.support.stack import running_stack

CHAT, EMBEDDING, RERANK = "smollm2-135m", "bge-small-en-v1.5", "ms-marco-minilm-l-12-v2"
SPEECH, TRANSCRIPTION, BACKGROUND, OCR = "hibari", "whisper-base", "u2netp", "pp-ocrv6-small"
MODELS = (CHAT, EMBEDDING, RERANK, SPEECH, TRANSCRIPTION, BACKGROUND, OCR)
CONCURRENCIES = (1, 2, 4, 8)
OUTPUT = CHECKOUT / "docs" / "benchmarks"
_TOKENS, _PROMPTS, _MAX_SECONDS = 64, 200, 60
_WORDS = ("river", "stone", "cloud", "bridge", "window", "garden", "winter", "letter", "engine", "market")
_PERF, _AIPERF = CHECKOUT / ".venv-perf", CHECKOUT / ".venv-aiperf"


@dataclass(frozen=True)
class Row:
    """One measurement. Latencies are in milliseconds; those of streams are of whole responses."""

    tool: str
    target: str
    concurrency: int
    requests_per_s: float
    latency_p50_ms: float
    latency_p90_ms: float
    latency_p99_ms: float
    ttft_p50_ms: float | None = None


def _text(words: int, chance: random.Random) -> str:
    return " ".join(chance.choices(_WORDS, k=words))


def _triton_inputs(chance: random.Random) -> dict[str, list[dict[str, Any]]]:
    """Return the inputs of requests to each model of Triton: see contract/tensors.py."""
    picture, clip = encode_image(composite("ball")[0]), _clip().read_bytes()
    sampling = json.dumps({"max_tokens": _TOKENS, "stream": True, "ignore_eos": True, "temperature": 0})
    return {
        CHAT: [{"messages": [_messages(chance)], "sampling_parameters": [sampling]} for _ in range(_PROMPTS)],
        EMBEDDING: [{"text": [_text(100, chance)]} for _ in range(_PROMPTS)],
        RERANK: [{"query": [_text(8, chance)], "document": [_text(100, chance)]} for _ in range(_PROMPTS)],
        SPEECH: [{"text_input": [f"{_text(8, chance)}."], "options": ["{}"]} for _ in range(_PROMPTS)],
        TRANSCRIPTION: [{"audio": _bytes(clip), "options": ["{}"]}],
        BACKGROUND: [{"image": _bytes(picture), "options": ["{}"]}],
        OCR: [{"image": _bytes(picture)}],
    }


def _messages(chance: random.Random) -> str:
    return json.dumps([{"role": "user", "content": _text(60, chance)}])


def _bytes(content: bytes) -> dict[str, Any]:
    """Return the value of a STRING input with one element, which perf_analyzer sends as it is: see pack_strings."""
    return {"content": {"b64": base64.b64encode(pack_strings([content])).decode()}, "shape": [1]}


def _clip() -> Path:
    return min(package_files(AUDIOEVAL).rglob("*.wav"))


def _api_payloads(chance: random.Random) -> dict[str, list[dict[str, Any]]]:
    """Return the bodies of requests to each endpoint that reads JSON."""
    chat = {"model": CHAT, "max_tokens": _TOKENS, "ignore_eos": True, "temperature": 0}
    return {
        "v1/chat/completions": [
            chat | {"messages": json.loads(_messages(chance)), "stream": True} for _ in range(_PROMPTS)
        ],
        "v1/completions": [chat | {"prompt": _text(60, chance)} for _ in range(_PROMPTS)],
        "v1/responses": [
            {"model": CHAT, "input": _text(60, chance), "max_output_tokens": _TOKENS, "store": False}
            for _ in range(_PROMPTS)
        ],
        "v1/embeddings": [{"model": EMBEDDING, "input": _text(100, chance)} for _ in range(_PROMPTS)],
        "v1/rerank": [
            {"model": RERANK, "query": _text(8, chance), "documents": [_text(100, chance)]} for _ in range(_PROMPTS)
        ],
        "v1/audio/speech": [{"model": SPEECH, "input": f"{_text(8, chance)}."} for _ in range(_PROMPTS)],
    }


class PerfAnalyzer:
    """NVIDIA's perf_analyzer, of the package tritonclient. Its libraries come from another package and from Debian."""

    def __init__(self, seconds: float, concurrencies: Sequence[int]):
        self._seconds, self._concurrencies = seconds, concurrencies
        cuda = next(_PERF.glob("lib/python3*/site-packages/nvidia/cuda_runtime/lib"))
        debian = unpacked("libb64", "libb64-0d") / "usr" / "lib" / f"{platform.machine()}-linux-gnu"
        self._environment = os.environ | {"LD_LIBRARY_PATH": f"{cuda}:{debian}"}

    def measure(self, target: str, data: Sequence[Mapping[str, Any]], *flags: str) -> Iterator[Row]:
        """Yield a row for each concurrency. A measurement is longer if too few requests end in it."""
        for concurrency in self._concurrencies:
            seconds = self._seconds
            while (row := self._try(target, data, flags, concurrency, seconds)) is None:
                seconds *= 4
            yield row

    def _try(
        self, target: str, data: Sequence[Mapping[str, Any]], flags: Sequence[str], concurrency: int, seconds: float
    ) -> Row | None:
        """Return the measurement, or None if no request has ended in the time. Raises RuntimeError if it fails."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "data.json").write_text(json.dumps({"data": list(data)}), encoding="utf-8")
            command = [str(_PERF / "bin" / "perf_analyzer"), *flags, "--input-data", str(folder / "data.json")]
            command += ["--concurrency-range", str(concurrency), "--max-threads", str(concurrency)]
            command += ["--measurement-interval", str(int(seconds * 1000)), "--max-trials", "4"]
            command += ["--stability-percentage", "50", "-f", str(folder / "out.csv")]
            command += ["--profile-export-file", str(folder / "out.json")]
            result = subprocess.run(
                command, env=self._environment, capture_output=True, encoding="utf-8", errors="replace", check=False
            )
            said = result.stdout + result.stderr
            is_too_short = "larger time window" in said or "Failed to obtain stable measurement" in said
            if is_too_short and not (folder / "out.csv").exists() and seconds < _MAX_SECONDS:
                return None
            if not (folder / "out.csv").exists():
                raise RuntimeError(f"perf_analyzer failed for {target}:\n{said[-2000:]}")
            return _row(target, concurrency, folder)


def _row(target: str, concurrency: int, folder: Path) -> Row:
    """Return the measurement that perf_analyzer has written. Latencies are computed from the single requests."""
    with (folder / "out.csv").open(encoding="utf-8") as file:
        table = next(csv.DictReader(file))
    # The file also has the requests and responses, with the bytes of audio and images.
    (experiment,) = json.loads((folder / "out.json").read_bytes().decode(errors="replace"), strict=False)["experiments"]
    done = [request for request in experiment["requests"] if request["response_timestamps"]]
    latencies = [(request["response_timestamps"][-1] - request["timestamp"]) / 1e6 for request in done]
    first = [(request["response_timestamps"][0] - request["timestamp"]) / 1e6 for request in done]
    is_stream = max(len(request["response_timestamps"]) for request in done) > 2
    return Row(
        "perf_analyzer",
        target,
        concurrency,
        round(float(table["Inferences/Second"]), 2),
        round(_percentile(latencies, 50), 1),
        round(_percentile(latencies, 90), 1),
        round(_percentile(latencies, 99), 1),
        round(_percentile(first, 50), 1) if is_stream else None,
    )


def _percentile(values: Sequence[float], percent: int) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


def _measure_triton(tool: PerfAnalyzer, stack: Settings, chance: random.Random) -> Iterator[Row]:
    for model, data in _triton_inputs(chance).items():
        streams = [] if model in (EMBEDDING, RERANK) else ["--streaming"]
        flags = ["-m", model, "-i", "grpc", "-u", f"127.0.0.1:{stack.triton_grpc_port}", *streams]
        yield from tool.measure(f"Triton: {model}", data, *flags, *(["--async"] if streams else []))


def _measure_api(tool: PerfAnalyzer, stack: Settings, chance: random.Random) -> Iterator[Row]:
    for endpoint, bodies in _api_payloads(chance).items():
        flags = ["-m", bodies[0]["model"], "--service-kind", "openai", "--endpoint", endpoint, "-i", "http", "--async"]
        data = [{"payload": [body]} for body in bodies]
        yield from tool.measure(f"API: /{endpoint}", data, *flags, "-u", f"http://127.0.0.1:{stack.port}")


def _measure_files(stack: Settings, concurrencies: Sequence[int]) -> Iterator[Row]:
    """Yield the measurements of endpoints that take files, by `trident bench serve`."""
    with tempfile.TemporaryDirectory() as name:
        picture = Path(name) / "picture.jpg"
        picture.write_bytes(encode_image(composite("ball")[0]))
        for target, file in (("/v1/audio/transcriptions", _clip()), ("/v1/images/remove_background", picture)):
            for concurrency in concurrencies:
                command = [sys.executable, "-m", "trident", "bench", "serve", "--url", f"http://127.0.0.1:{stack.port}"]
                command += ["--file", str(file), "--concurrency", str(concurrency), "--json"]
                found = json.loads(subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout)
                latencies = (found[f"latency_p{percent}_ms"] for percent in (50, 90, 99))
                yield Row("trident bench serve", f"API: {target}", concurrency, found["requests_per_s"], *latencies)


def _measure_aiperf(stack: Settings, concurrencies: Sequence[int], num_requests: int) -> Iterator[Row]:
    """Yield the measurements of streamed chats by AIPerf, which counts tokens with the model's own tokenizer."""
    tokenizer = default_model_repository() / CHAT / "1"
    for concurrency in concurrencies:
        with tempfile.TemporaryDirectory() as name:
            command = [str(_AIPERF / "bin" / "aiperf"), "profile", "--model", CHAT, "--endpoint-type", "chat"]
            command += ["--streaming", "--url", f"http://127.0.0.1:{stack.port}", "--tokenizer", str(tokenizer)]
            command += ["--concurrency", str(concurrency), "--request-count", str(num_requests * concurrency)]
            command += ["--isl", "100", "--osl", str(_TOKENS), "--extra-inputs", "ignore_eos:true", "--ui", "none"]
            command += ["--use-server-token-count", "--artifact-dir", name]
            result = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
            files = list(Path(name).rglob("profile_export_aiperf.json"))
            if not files:
                raise RuntimeError(f"AIPerf failed:\n{(result.stdout + result.stderr)[-2000:]}")
            found = json.loads(files[0].read_text(encoding="utf-8"))
        latency, first = found["request_latency"], found["time_to_first_token"]
        yield Row(
            "AIPerf",
            "API: /v1/chat/completions",
            concurrency,
            round(found["request_throughput"]["avg"], 2),
            round(latency["p50"], 1),
            round(latency["p90"], 1),
            round(latency["p99"], 1),
            round(first["p50"], 1),
        )


def _write(rows: Sequence[Row], output: Path) -> None:
    """Write the table, the same as JSON with the machine and the date, and the plots."""
    output.mkdir(parents=True, exist_ok=True)
    with (output / "perf.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(asdict(rows[0])), lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(asdict, rows))
    about = {"date": datetime.now(UTC).date().isoformat(), "machine": _machine()}
    content = about | {"rows": [asdict(row) for row in rows]}
    (output / "perf.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    _draw(rows, output / "perf.png")


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{len(os.sched_getaffinity(0))} cores of {name}"


def _draw(rows: Sequence[Row], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 9), layout="constrained")
    grid = figure.subplots(2, 2)
    for line, prefix in enumerate(("Triton", "API")):
        for axes, name, title in zip(
            grid[line], ("requests_per_s", "latency_p90_ms"), ("requests/s", "latency, p90, ms"), strict=True
        ):
            for target in dict.fromkeys((row.tool, row.target) for row in rows if row.target.startswith(prefix)):
                chosen = [row for row in rows if (row.tool, row.target) == target]
                label = target[1].partition(": ")[2] + (" (AIPerf)" if target[0] == "AIPerf" else "")
                axes.plot(
                    [row.concurrency for row in chosen], [getattr(row, name) for row in chosen], marker="o", label=label
                )
            axes.set(title=f"{prefix}: {title}", xlabel="requests at once", yscale="log")
            axes.grid(visible=True, alpha=0.3)
        grid[line][1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=80)


def main() -> None:
    """Measure, print each result, and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4, help="length of a measurement (default: 4)")
    parser.add_argument("--concurrency", type=int, nargs="+", default=list(CONCURRENCIES), help="requests at once")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="folder of the results")
    options = parser.parse_args()
    chance, rows = random.Random(0), list[Row]()  # noqa: S311
    tool = PerfAnalyzer(options.seconds, options.concurrency)
    with running_stack(MODELS) as stack:
        parts = [
            _measure_triton(tool, stack, chance),
            _measure_api(tool, stack, chance),
            _measure_files(stack, options.concurrency),
        ]
        if (_AIPERF / "ready").exists():
            parts.append(_measure_aiperf(stack, options.concurrency, 6))
        for part in parts:
            for row in part:
                rows.append(row)
                print(row, flush=True)
    _write(rows, options.output)
    print(f"Results are in {options.output}")


if __name__ == "__main__":
    main()
