"""LoRA adapters of a GGUF file as models of their own, against the same adapter merged into the weights."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
from openai import OpenAI

from tests.support.gguf_adapters import write_adapter, write_merged
from tests.support.gguf_files import gguf_file
from tests.support.live import MODEL, url, user
from tests.support.stack import running_stack

NAME = f"{MODEL}-gguf"
BASE, FIRST, SECOND, MERGED = MODEL, f"{MODEL}:first", f"{MODEL}:second", "merged"
QUESTION = "What is a lighthouse?"


def export(repository, *arguments):
    command = [sys.executable, "-m", "trident", "export", *map(str, arguments), "--engine", "llamacpp"]
    return subprocess.run(
        [*command, "--model-repository", str(repository)], capture_output=True, encoding="utf-8", timeout=100
    )


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters")
    source, repository = gguf_file(MODEL), folder / "repository"
    adapters = [write_adapter(source, folder / f"{name}.gguf", seed) for seed, name in enumerate(("first", "second"))]
    merged = write_merged(source, folder / "merged.gguf", 0)
    flags = ["--lora", str(adapters[0]), "--lora", str(adapters[1])]
    with running_stack([str(source)], "--model-repository", str(repository), *flags, engine="llamacpp"):
        pass
    # The next start keeps the adapters.
    models = [str(source), str(merged)]
    with running_stack(models, "--model-repository", str(repository), engine="llamacpp") as settings:
        yield settings


@pytest.fixture(scope="module")
def client(stack):
    return OpenAI(base_url=url(stack, "/v1"), api_key="unused", max_retries=0, timeout=60)


def logprobs(client, model, text=QUESTION):
    completion = client.chat.completions.create(
        model=model, messages=user(text), temperature=0, max_tokens=1, logprobs=True, top_logprobs=10
    )
    assert completion.model == model
    return {entry.token: entry.logprob for entry in completion.choices[0].logprobs.content[0].top_logprobs}


def test_adapters_are_listed_as_models(client):
    models = {model.id: model for model in client.models.list().data}
    assert list(models) == [BASE, FIRST, SECOND, MERGED]
    assert "adapters" in models[BASE].capabilities
    assert "adapters" not in models[FIRST].capabilities
    assert client.models.retrieve(FIRST).id == FIRST
    assert client.models.retrieve(f"{NAME}:second").id == SECOND


def test_an_adapter_computes_what_merged_weights_do(client):
    merged, first = logprobs(client, MERGED), logprobs(client, FIRST)
    best = list(merged)[:3]
    assert [first[token] for token in best] == pytest.approx([merged[token] for token in best], abs=0.3)
    assert best[0] not in logprobs(client, BASE)
    assert best[0] not in logprobs(client, SECOND)


def test_requests_with_and_without_adapters_run_side_by_side(client):
    models = [BASE, FIRST, SECOND]
    alone = {model: logprobs(client, model) for model in models}
    with ThreadPoolExecutor(12) as pool:
        together = list(pool.map(lambda model: logprobs(client, model), models * 8))
    for model, found in zip(models * 8, together, strict=True):
        best = next(iter(alone[model]))
        assert next(iter(found)) == best
        assert found[best] == pytest.approx(alone[model][best], abs=0.3)
    assert len({next(iter(values)) for values in alone.values()}) == 3


def test_prompts_are_not_shared_between_adapters(client):
    prompt = "The lighthouse of this test stands on a cape, and it is forty meters high. " * 4

    def cached(model):
        usage = client.completions.create(model=model, prompt=prompt, max_tokens=2).usage
        return usage.prompt_tokens - usage.prompt_tokens_details.cached_tokens

    for model in (BASE, FIRST, SECOND):
        assert cached(model) > 50
        assert cached(model) == 1


def test_an_unknown_adapter_is_an_unknown_model(client):
    with pytest.raises(openai.NotFoundError):
        client.completions.create(model=f"{BASE}:third", prompt="Hi")


def test_unusable_adapters_are_refused(tmp_path):
    source, repository = gguf_file(MODEL), tmp_path / "repository"
    other = write_adapter(source, tmp_path / "other.gguf", 0, architecture="qwen2")
    (tmp_path / "a").mkdir()
    twice = [write_adapter(source, path, 0) for path in (tmp_path / "a" / "x.gguf", tmp_path / "x.gguf")]
    for arguments, message in (
        ([source, "--lora", source], "not a LoRA adapter"),
        ([source, "--lora", other], "is an adapter for qwen2, and the model is llama"),
        ([source, "--lora", twice[0], "--lora", twice[1]], "the same name"),
        ([source, "bge-small-en-v1.5", "--lora", other], "requires exactly one MODEL"),
        (["bge-small-en-v1.5", "--lora", other], "does not apply"),
        ([twice[0]], "is a LoRA adapter, not a model"),
    ):
        result = export(repository, *arguments)
        assert result.returncode
        assert message in result.stderr
