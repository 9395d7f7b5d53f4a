"""A model from a hub, served with one command."""

import pytest
from openai import OpenAI

from tests.support.gguf_files import gguf_file
from tests.support.hub import Hub, running_hub
from tests.support.live import MODEL, url, user
from tests.support.stack import running_stack

REPOSITORY = "org/SmolLM2-Hub-GGUF"


@pytest.fixture(scope="module", params=["hf", "ms"])
def stack(request, tmp_path_factory):
    files = {"README.md": b"", "SmolLM2-Hub.Q4_1.gguf": gguf_file(MODEL).read_bytes()}
    with running_hub(Hub({REPOSITORY: files})) as hub, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", hub.url)
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hf")))
        patch.setenv("HF_HUB_DISABLE_XET", "1")
        patch.setenv("MODELSCOPE_DOMAIN", hub.url)
        repository = str(tmp_path_factory.mktemp("repository"))
        name = f"{request.param}:{REPOSITORY}:Q4_1"
        with running_stack([name], "--model-repository", repository, engine="llamacpp") as settings:
            yield settings


def test_model_from_a_hub_answers(stack):
    client = OpenAI(base_url=url(stack, "/v1"), api_key="unused", max_retries=0, timeout=60)
    [model] = client.models.list().data
    assert model.id == "SmolLM2-Hub.Q4_1"
    completion = client.chat.completions.create(
        model=model.id, messages=user("What is the capital of Japan?"), temperature=0, max_tokens=16
    )
    assert "Tokyo" in completion.choices[0].message.content
