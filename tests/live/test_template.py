"""A chat template with non-ASCII characters, like the templates of DeepSeek and other Chinese models."""

import pytest
from openai import OpenAI
from tokenizers import Tokenizer

from contract.paths import latest_version
from tests.support.live import MODEL, url, user
from tests.support.stack import make_repository, running_stack

TEMPLATE = "<｜User｜>请回答：{{ messages[0].content }}<｜Assistant｜>"


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    repository = make_repository(tmp_path_factory.mktemp("template"), MODEL, {})
    version = latest_version(repository / MODEL)
    source = version.resolve()
    version.unlink()
    version.mkdir()
    for path in source.iterdir():
        (version / path.name).symlink_to(path)
    (version / "chat_template.jinja").unlink()
    (version / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    return repository


def test_chat_template_is_read_as_utf8(repository):
    tokenizer = Tokenizer.from_file(str(latest_version(repository / MODEL) / "tokenizer.json"))
    prompt = TEMPLATE.replace("{{ messages[0].content }}", "你好")
    with running_stack([MODEL], "--model-repository", str(repository)) as settings:
        client = OpenAI(base_url=url(settings, "/v1"), api_key="unused", max_retries=0, timeout=60)
        completion = client.chat.completions.create(model=MODEL, messages=user("你好"), max_tokens=4)
    assert completion.usage.prompt_tokens == len(tokenizer.encode(prompt, add_special_tokens=False).ids)
