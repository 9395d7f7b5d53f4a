"""The choice of the engine after both have been measured."""

import json
import subprocess

import pytest
from click.testing import CliRunner

from export import engines
from export import repository as repository_module
from export.catalog import load_catalog
from export.fetch import ExportError
from frontend.settings import Settings
from trident.cli import main, tune


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """Return a function that sets the measured speeds of the engines that can run the model."""
    monkeypatch.setattr(engines, "_has_amx", lambda: False)

    def set_speeds(**speeds):
        def export_model(entry, cache, repository, source, engine):
            if engine not in speeds:
                raise ExportError("the architecture is not supported")
            folder = repository / entry.name
            folder.mkdir(parents=True)
            (folder / "config.pbtxt").write_text(
                f'parameters {{ key: "engine" value {{ string_value: "{engine}" }} }}', encoding="utf-8"
            )
            return folder

        def run(command, **_):
            order = [texts["engine"] for _, texts in json.loads(command[-1])]
            return subprocess.CompletedProcess(command, 0, json.dumps([speeds[engine] for engine in order]), "")

        monkeypatch.setattr(repository_module, "export_model", export_model)
        monkeypatch.setattr(tune.subprocess, "run", run)
        return tune.tuned_engine(load_catalog()["smollm2-135m"], None, Settings(cache=tmp_path))

    return set_speeds


@pytest.mark.parametrize(
    ("openvino", "llamacpp", "chosen"),
    [
        ((100, 400), (100, 400), "openvino"),
        ((100, 400), (114, 456), "openvino"),
        ((100, 400), (116, 464), "llamacpp"),
        ((100, 400), (200, 210), "openvino"),
        ((100, 400), (200, 300), "llamacpp"),
    ],
)
def test_engine_is_switched_only_above_15_percent(measured, openvino, llamacpp, chosen):
    assert measured(openvino=openvino, llamacpp=llamacpp) == chosen


def test_the_only_engine_that_can_run_a_model_is_used(measured, capsys):
    assert measured(llamacpp=(1, 1)) == "llamacpp"
    assert "OpenVINO cannot run it: the architecture is not supported" in capsys.readouterr().out


def test_it_applies_only_to_chat_models_published_as_gguf(tmp_path):
    with pytest.raises(ExportError, match="--tune does not apply"):
        tune.tuned_engine(load_catalog()["bge-small-en-v1.5"], None, Settings(cache=tmp_path))


@pytest.mark.parametrize("flags", [["--engine", "llamacpp"], ["--requantize"], ["--lora", "x.gguf"]])
def test_it_cannot_be_combined_with_a_given_engine(flags):
    result = CliRunner().invoke(main, ["export", "smollm2-135m", "--tune", *flags])
    assert result.exit_code == 2
    assert "--tune chooses the engine" in result.output
