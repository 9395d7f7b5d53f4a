"""`trident size`: the arithmetic, the limits, and files that say nothing."""

import json

import pytest
from click.testing import CliRunner

from trident.cli import main


@pytest.fixture
def measure(tmp_path):
    """Return a function that writes a result of `trident bench serve --json`, and returns its path."""

    def write(concurrency, rate, ttft, **more):
        content = {
            "model": "org/chat",
            "concurrency": concurrency,
            "requests_per_s": rate,
            "output_tokens_mean": 64.0,
            "ttft_p90_ms": ttft,
            "latency_p90_ms": 1000.0,
            "failed": 0,
        }
        path = tmp_path / f"{concurrency}.json"
        path.write_text(json.dumps(content | more), encoding="utf-8")
        return str(path)

    return write


def size(*arguments, code=0):
    result = CliRunner().invoke(main, ["size", *arguments], catch_exceptions=False, standalone_mode=True)
    assert result.exit_code == code, result.output
    return result


def test_fastest_measurement_within_the_limits_counts(measure):
    files = [measure(1, 1.0, 50.0), measure(8, 4.0, 400.0), measure(32, 6.0, 3000.0)]
    assert json.loads(size(*files, "--rate", "10", "--share", "1", "--json").output)["replicas"] == 2
    found = json.loads(size(*files, "--rate", "10", "--share", "1", "--ttft", "500", "--json").output)
    assert (found["replicas"], found["concurrency_of_replica"]) == (3, 8)
    assert "within the limits" in size(*files, "--rate", "10", "--ttft", "10", code=1).output


def test_longer_responses_need_more_replicas(measure):
    file = measure(8, 4.0, 400.0)
    replicas = [
        json.loads(size(file, "--rate", "7", "--output-tokens", str(tokens), "--json").output)["replicas"]
        for tokens in (64, 128, 640)
    ]
    assert replicas == [3, 5, 25]
    assert "--latency" in size(file, "--rate", "7", "--output-tokens", "640", "--latency", "2000", code=2).output


def test_table(measure):
    output = size(measure(8, 4.0, 400.0), "--rate", "7").output
    assert "7 responses/s of 64 tokens" in output
    assert "4.00 responses/s with 8 at once, the first token after 400 ms (p90)" in output
    assert "3, each used to 70%" in output


def test_files_that_say_nothing_are_refused(measure, tmp_path):
    assert "several models" in size(measure(1, 1, 1), measure(2, 1, 1, model="other"), "--rate", "1", code=2).output
    assert "requests failed" in size(measure(1, 1, 1, failed=3), "--rate", "1", code=2).output
    assert "is not a result" in size(measure(1, 1, 1, latency_p90_ms=None), "--rate", "1", code=2).output
    (tmp_path / "text").write_text("text", encoding="utf-8")
    assert "is not a result" in size(str(tmp_path / "text"), "--rate", "1", code=2).output
