"""The catalog, the configurations made of it and the backends agree."""

import re
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from export.catalog import load_catalog
from export.converters import CONVERTERS
from export.triton_config import TENSORS, render_config
from frontend.settings import DEFAULT_ALIASES

CHECKOUT = Path(__file__).resolve().parents[2]
ENTRIES = list(load_catalog().values())


def test_the_starter_set_is_what_make_serves():
    served = re.search(r"^MODELS \?= (.*)$", (CHECKOUT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)[
        1
    ].split()
    assert [entry.name for entry in ENTRIES if entry.starter] == served


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_an_entry_can_be_made_and_served(entry):
    assert entry.converter in CONVERTERS
    assert (CHECKOUT / "backends" / entry.backend / "model.py").exists()
    assert entry.task in TENSORS


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_the_configuration_parses_and_says_what_the_frontend_reads(entry):
    text = render_config(entry, {"context_length": "8192"})
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    assert (config.name, config.backend) == (entry.name, entry.backend)
    assert (parameters["id"], parameters["task"], parameters["owned_by"]) == (entry.id, entry.task, entry.owned_by)
    assert int(parameters["created"]) > 1_500_000_000
    tensors = TENSORS[entry.task]
    assert config.model_transaction_policy.decoupled == tensors.decoupled
    assert (config.max_batch_size > 0) == config.HasField("dynamic_batching") == tensors.batched


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_the_backend_reads_the_parameters_and_tensors_it_is_given(entry):
    folders = [CHECKOUT / "backends" / name for name in (entry.backend, "protocol")]
    source = "".join(path.read_text(encoding="utf-8") for folder in folders for path in folder.glob("*.py"))
    found_by_converters = dict.fromkeys(("context_length", "python", "voice"), "1")
    config = render_config(entry, found_by_converters)
    for name in set(re.findall(r'parameters\["(\w+)"\]', source)) - {"seed", "top_k", "grammar"}:
        assert f'key: "{name}"' in config, name
    tensors = TENSORS[entry.task]
    for name in [*tensors.inputs, *tensors.outputs]:
        assert f'"{name}"' in source, name


def test_aliases_mean_tasks_that_exist():
    assert set(DEFAULT_ALIASES.values()) <= set(TENSORS)


@pytest.mark.parametrize("name", CONVERTERS)
def test_a_conversion_knows_its_files(name):
    conversion = CONVERTERS[name]
    assert f"{conversion.convert.__module__.replace('.', '/')}.py" in conversion.files
    assert conversion.source()
