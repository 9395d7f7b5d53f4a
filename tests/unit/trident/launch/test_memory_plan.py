"""The models that are served together fit into memory, or are refused with numbers."""

import os
import subprocess
import sys

import pytest

from contract.parameters import GenerationParameters, read_parameters
from export.triton_config import parse_config
from frontend.settings import Settings
from trident.launch import memory_plan
from trident.launch.memory_plan import make_plan, write_repository
from trident.launch.preflight import LaunchError

CHAT = {"context_length": 8192, "kv_bytes_per_token": 20_000, "cache_tokens": "auto", "max_num_seqs": "auto"}


@pytest.fixture
def repository(tmp_path):
    """Return a function that adds a model to a repository."""

    def add(name, backend="generation", size=1000, **parameters):
        version = tmp_path / "repository" / name / "1"
        version.mkdir(parents=True)
        with (version / "weights").open("wb") as file:
            file.truncate(size)
        lines = [
            f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}' for key, value in parameters.items()
        ]
        (version.parent / "config.pbtxt").write_text("\n".join([f'backend: "{backend}"', *lines]), encoding="utf-8")
        return tmp_path / "repository"

    return add


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """Return a function that makes a plan for a machine with so many gigabytes."""

    def run(gigabytes, *names, **settings):
        monkeypatch.setattr(memory_plan, "memory_limit", lambda: round(gigabytes * 1e9))
        given = Settings(model_repository=tmp_path / "repository", cache=tmp_path / "cache", **settings)
        return make_plan(given, names)

    return run


def chosen(plan, name="chat"):
    return tuple(int(plan.parameters[name][key]) for key in ("cache_tokens", "context_length", "max_num_seqs"))


@pytest.mark.parametrize(
    ("gigabytes", "expected"),
    [
        (24, (32_768, 8192, 64)),
        (1.1, (12_000, 8192, 46)),  # 0.4 of the 0.6 GB that are left
        (0.8, (6_000, 6_000, 23)),  # the context is shortened to the cache
        (0.55, (2_048, 2_048, 8)),
    ],
)
def test_cache_context_and_concurrency_depend_on_the_memory(repository, plan, gigabytes, expected):
    repository("chat", size=0, **CHAT)
    assert chosen(plan(gigabytes, "chat")) == expected


def test_models_share_what_is_left(repository, plan):
    for name in ("chat", "other"):
        repository(name, size=100_000_000, **CHAT)
    repository("encoder", "encoder", size=200_000_000)
    found = plan(2, "chat", "other", "encoder")
    # 2 - 0.2 - 2 x (0.1 + 0.3) - 0.26 GB are left; each chat model gets a fifth of that.
    assert chosen(found)[0] == chosen(found, "other")[0] == 7_400
    assert "encoder" not in found.parameters
    assert found.total < 2e9


def test_models_that_do_not_fit_are_refused_with_the_arithmetic(repository, plan):
    repository("chat", size=2_000_000_000, **CHAT)
    repository("encoder", "encoder", size=200_000_000)
    with pytest.raises(LaunchError) as caught:
        plan(2, "chat", "encoder")
    text = str(caught.value)
    assert "chat: 2.3 GB: 2.0 GB for the weights, 0.30 GB for the engine, 0.04 GB for the KV cache" in text
    assert "2,048 tokens x 20,000 bytes" in text
    assert "encoder: 0.26 GB" in text
    assert "2.8 GB of 2.0 GB" in text
    assert "--kv-cache-gb" in text


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"kv_cache_gb": 1.0}, (50_000, 8192, 64)),
        ({"kv_cache_gb": 0.1}, (5_000, 5_000, 19)),
        ({"context_length": 1000}, (32_768, 1000, 64)),
        ({"max_num_seqs": 3}, (32_768, 8192, 3)),
    ],
)
def test_settings_take_precedence(repository, plan, settings, expected):
    repository("chat", size=0, **CHAT)
    assert chosen(plan(24, "chat", **settings)) == expected


def test_cache_that_is_set_but_does_not_fit_is_refused(repository, plan):
    repository("chat", size=0, **CHAT)
    with pytest.raises(LaunchError, match="more memory than this machine has"):
        plan(2, "chat", kv_cache_gb=3.0)


def test_context_beyond_the_models_own_is_refused(repository, plan):
    repository("chat", size=0, **CHAT)
    with pytest.raises(LaunchError, match="--context-length 9,000 exceeds the 8,192 tokens of chat"):
        plan(24, "chat", context_length=9000)


def test_values_that_an_operator_set_are_kept(repository, plan):
    repository("chat", size=0, **CHAT | {"cache_tokens": 4096, "max_num_seqs": 5})
    assert chosen(plan(24, "chat")) == (4096, 4096, 5)


def test_unknown_size_of_a_token_leaves_the_cache_to_the_engine(repository, plan):
    repository("vision", size=0, context_length=4096, engine="openvino", cache_tokens="auto", max_num_seqs="auto")
    repository("recurrent", size=0, **CHAT | {"kv_bytes_per_token": 0, "engine": "llamacpp"})
    found = plan(24, "vision", "recurrent")
    assert chosen(found, "vision") == (0, 4096, 64)
    assert chosen(found, "recurrent") == (32_768, 8192, 64)


def test_repository_has_the_numbers_and_links_to_the_models(repository, plan, tmp_path):
    folder = repository("chat", size=5, **CHAT)
    repository("encoder", "encoder")
    settings = Settings(model_repository=folder, cache=tmp_path / "cache")
    for _ in range(2):  # also over the previous one
        write_repository(settings, [plan(24, "chat", "encoder")])
    target = settings.served_repository
    assert parse_config(target / "chat" / "config.pbtxt").parameters["cache_tokens"].string_value == "32768"
    assert (target / "chat" / "1" / "weights").stat().st_size == 5
    assert (target / "encoder").resolve() == folder / "encoder"
    assert parse_config(folder / "chat" / "config.pbtxt").parameters["cache_tokens"].string_value == "auto"


def test_command_reports_a_problem_without_a_traceback(repository, tmp_path):
    folder = repository("chat", size=0, **CHAT)
    settings = Settings(model_repository=folder, cache=tmp_path / "cache", models=("chat",), context_length=9000)
    command = [sys.executable, "-m", "trident.launch.memory_plan"]
    environment = os.environ | settings.as_environment()
    result = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8")
    assert result.returncode == 1
    assert result.stderr == "--context-length 9,000 exceeds the 8,192 tokens of chat\n"


def test_auto_stands_for_the_default_without_the_launcher():
    texts = dict.fromkeys(("device", "precision", "kv_cache_precision"), "x") | dict.fromkeys(
        ("cache_size_gb", "max_num_batched_tokens", "queue_size", "context_length", "max_pixels", "image_tokens"), "1"
    )
    parameters = read_parameters(GenerationParameters, texts | {"cache_tokens": "auto", "max_num_seqs": "auto"})
    assert (parameters.cache_tokens, parameters.max_num_seqs) == (0, 64)
    with pytest.raises(ValueError, match="'auto' is not a valid value of the parameter 'queue_size'"):
        read_parameters(GenerationParameters, texts | {"queue_size": "auto"})
