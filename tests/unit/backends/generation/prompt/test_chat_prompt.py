"""Chat templates are rendered as in Hugging Face; invalid or overlong prompts are rejected with a reason."""

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from backends.common.errors import InvalidRequest
from backends.generation.prompt.chat_prompt import ChatPrompt

TEMPLATE = """{% for message in messages %}
{% if message['role'] == 'critic' %}{{ raise_exception('no critics here') }}{% endif %}
<{{ message['role'] }}>{{ message['content'] | tojson }}
{% endfor %}
{% if add_generation_prompt %}<assistant>{% endif %}
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_messages_are_rendered_as_in_hugging_face(folder):
    prompt = ChatPrompt(folder, 1000)
    ids = prompt.encode([{"role": "user", "content": "<b>你好"}])
    text = "".join(prompt.vocabulary.decode([i]) for i in ids)
    decoded = bytes({c: b for b, c in byte_table().items()}[c] for c in text).decode()
    assert decoded == '<user>"<b>你好"\n<assistant>'


def byte_table():
    """Return a table from each byte to the character that represents the byte in GPT-2's alphabet."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {byte: chr(byte) for byte in printable}
    missing = [byte for byte in range(256) if byte not in table]
    return table | {byte: chr(256 + i) for i, byte in enumerate(missing)}


def test_the_templates_reason_for_rejecting_messages_is_reported(folder):
    with pytest.raises(InvalidRequest, match="no critics here") as caught:
        ChatPrompt(folder, 1000).encode([{"role": "critic", "content": "x"}])
    assert caught.value.param == "messages"


def test_the_error_for_a_too_long_prompt_states_the_limit_and_the_prompt_length(folder):
    with pytest.raises(InvalidRequest, match=r"length is 50 tokens.*resulted in 121 tokens") as caught:
        ChatPrompt(folder, 50).from_messages([{"role": "user", "content": "x" * 101}])
    assert caught.value.code == "context_length_exceeded"


def test_the_remaining_context_is_the_context_length_minus_the_prompt(folder):
    prompt = ChatPrompt(folder, 50)
    assert prompt.remaining_context_after(20) == 30


def test_templates_are_sandboxed(folder):
    (folder / "chat_template.jinja").write_text("{{ ''.__class__.__mro__[1].__subclasses__() }}", encoding="utf-8")
    with pytest.raises(InvalidRequest):
        ChatPrompt(folder, 1000).encode([{"role": "user", "content": "x"}])


def test_a_text_prompt_gets_the_tokenizers_initial_tokens_but_no_template(folder):
    begin = Tokenizer.from_file(str(folder / "tokenizer.json"))
    begin.add_special_tokens(["<s>"])
    begin.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 256)])
    begin.save(str(folder / "tokenizer.json"))
    prompt = ChatPrompt(folder, 50).from_text("abc")
    ids = memoryview(prompt.ids).cast("q").tolist()
    assert (ids[0], prompt.num_tokens, prompt.remaining_context, prompt.prompt_text) == (256, 4, 46, "abc")


def test_token_ids_are_used_unchanged(folder):
    prompt = ChatPrompt(folder, 50)
    ids = prompt.vocabulary.encode("abc")
    read = prompt.from_token_ids(ids)
    assert memoryview(read.ids).cast("q").tolist() == ids
    assert read.num_tokens == 3


@pytest.mark.parametrize("number", [-1, 256, 2**31 - 1])
def test_the_error_for_an_unknown_token_id_names_its_index(folder, number):
    with pytest.raises(InvalidRequest, match="from 0 to 255") as caught:
        ChatPrompt(folder, 50).from_token_ids([3, number])
    assert caught.value.param == "prompt[1]"


def test_empty_and_too_long_prompts_are_rejected(folder):
    prompt = ChatPrompt(folder, 50)
    for read, content in ((prompt.from_text, ""), (prompt.from_token_ids, [])):
        with pytest.raises(InvalidRequest, match="empty") as caught:
            read(content)
        assert caught.value.param == "prompt"
    for read, content in ((prompt.from_text, "x" * 50), (prompt.from_token_ids, [1] * 50)):
        with pytest.raises(InvalidRequest, match="your prompt resulted in 50 tokens") as caught:
            read(content)
        assert (caught.value.param, caught.value.code) == ("prompt", "context_length_exceeded")
