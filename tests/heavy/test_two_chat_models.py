"""Two chat models in one Trident stack, each exported by the real exporter from its published weights."""

from openai import OpenAI

from tests.support.live import export, url, user
from tests.support.stack import running_stack

QWEN = "qwen2.5-coder-0.5b"


def test_second_model_published_in_six_parts_responds_in_chinese():
    export(QWEN)
    with running_stack(["smollm2-135m", QWEN]) as both:
        client = OpenAI(base_url=url(both, "/v1"), api_key="unused", max_retries=0, timeout=120)
        assert [model.id for model in client.models.list()] == [
            "HuggingFaceTB/SmolLM2-135M-Instruct",
            "Qwen/Qwen2.5-Coder-0.5B-Instruct",
        ]
        options = {"messages": user("用一句话解释 Rust。"), "temperature": 0, "max_tokens": 60}
        completion = client.chat.completions.create(model=QWEN, **options)
        text = completion.choices[0].message.content
        assert completion.model == "Qwen/Qwen2.5-Coder-0.5B-Instruct"
        assert "Rust" in text
        assert sum("\u4e00" <= character <= "\u9fff" for character in text) > 15
        first = client.chat.completions.create(model="gpt-4o", **options | {"max_tokens": 1})
        assert first.model == "HuggingFaceTB/SmolLM2-135M-Instruct"
