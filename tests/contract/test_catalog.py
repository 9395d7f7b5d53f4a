"""Checks that the catalog, the configurations rendered from it, and the backends are consistent."""

import dataclasses
import re
from importlib import import_module
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from contract.parameters import PARAMETERS, read_parameters
from contract.tensors import TENSORS
from export.catalog import load_catalog
from export.converters import CONVERTERS
from export.triton_config import render_config
from frontend.settings import DEFAULT_ALIASES

CHECKOUT = Path(__file__).resolve().parents[2]
FRONTEND_PARAMETERS = {
    "generation_defaults",
    "task",
    "id",
    "owned_by",
    "created",
    "capabilities",
    "context_length",
    "queue_size",
}
ENTRIES = list(load_catalog().values())


def test_make_serves_the_starter_models():
    served = re.search(r"^MODELS \?= (.*)$", (CHECKOUT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)[
        1
    ].split()
    assert [entry.name for entry in ENTRIES if entry.starter] == served


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_entry_has_a_converter_a_backend_and_a_task(entry):
    assert entry.converter in CONVERTERS
    assert (CHECKOUT / "backends" / entry.backend / "model.py").exists()
    assert entry.task in TENSORS


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_configuration_matches_the_catalog_entry_and_the_task(entry):
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
def test_configuration_has_every_backend_parameter_and_no_unknown_ones(entry):
    from_converter = {"context_length": "2048"} | ({"voice": "heart"} if entry.task == "speech" else {})
    config = text_format.Parse(render_config(entry, from_converter), model_config_pb2.ModelConfig())
    texts = {key: value.string_value for key, value in config.parameters.items()}
    parameters = read_parameters(PARAMETERS[entry.backend], texts)
    assert parameters.device == "CPU"
    # The backend or the frontend reads every parameter of the configuration.
    known = {field.name for field in dataclasses.fields(parameters)} | FRONTEND_PARAMETERS
    assert set(texts) <= known


def test_aliases_map_to_existing_tasks():
    assert set(DEFAULT_ALIASES.values()) <= set(TENSORS)


@pytest.mark.parametrize("name", CONVERTERS)
def test_conversion_has_a_function_and_lists_its_source_files(name):
    conversion = CONVERTERS[name]
    module, _, function = conversion.function.partition(".")
    assert f"export/converters/{module}.py" in conversion.files
    assert callable(getattr(import_module(f"export.converters.{module}"), function))
    assert conversion.source()
