"""Tools in prompts: the chat template renders them if it supports tools; otherwise, they are added as instructions."""

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from backends.generation.prompt.chat_prompt import ChatPrompt, TemplateInputs, reasoning_prefix_of

TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
CALL = {"id": "call12345", "type": "function", "function": {"name": "weather", "arguments": {"city": "Köln"}}}
USER = {"role": "user", "content": "Hi"}
HISTORY = [
    USER,
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "rain", "tool_call_id": "call12345"},
    {"role": "tool", "content": "wind", "tool_call_id": "call12345"},
]

PLAIN = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] + '' }}{% endfor %}<assistant>"
CALLS = """{% for m in messages %}<{{ m.role }}>{{ m.content or '' }}{% for c in m.tool_calls %}\
CALL {{ c.function.name }} {{ ARGUMENTS }}{% endfor %}{% endfor %}<assistant>"""
TOOLS = "{% for t in tools or [] %}TOOL {{ t | tojson }}{% endfor %}"
OBJECT, TEXT = "c.function.arguments | tojson", "c.function.arguments + ''"
PHI = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% if m.tools %}|tool|{{ m.tools }}{% endif %}{% endfor %}"


@pytest.fixture
def open_prompt(tmp_path):
    def open_with(template):
        (tmp_path / "chat_template.jinja").write_text(template, encoding="utf-8")
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(alphabet)}, merges=[]))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_special_tokens([AddedToken("[CALL]", special=True), AddedToken("[END]", special=True)])
        tokenizer.save(str(tmp_path / "tokenizer.json"))
        return ChatPrompt(tmp_path, 10_000)

    return open_with


def rendered(prompt, messages, tools=(), kwargs=None):
    template_inputs = TemplateInputs(list(tools), kwargs or {})
    ids = memoryview(prompt.from_messages(messages, template_inputs=template_inputs).ids).cast("q").tolist()
    return prompt.vocabulary.decode(ids)


def test_a_template_with_tool_support_gets_tools(open_prompt):
    prompt = open_prompt(TOOLS + CALLS.replace("ARGUMENTS", OBJECT))
    text = rendered(prompt, HISTORY, [TOOL])
    assert text.startswith('TOOL {"type": "function", "function": {"name": "weather"')
    assert '<assistant>CALL weather {"city": "Köln"}<tool>rain<tool>wind<assistant>' in text


def test_a_template_that_needs_arguments_as_text_gets_text(open_prompt):
    text = rendered(open_prompt(CALLS.replace("ARGUMENTS", TEXT)), HISTORY)
    assert '<assistant>CALL weather {"city": "Köln"}<tool>rain' in text


def test_a_template_without_tool_support_gets_instructions(open_prompt):
    system = {"role": "system", "content": "Be brief."}
    text = rendered(open_prompt(PLAIN), [system, *HISTORY], [TOOL])
    assert text.startswith("<system>Be brief.\n\n# Tools\n")
    assert '<tools>\n{"type": "function", "function": {"name": "weather"' in text
    call = '<assistant><tool_call>\n{"name": "weather", "arguments": {"city": "Köln"}}\n</tool_call>'
    results = "<user><tool_response>\nrain\n</tool_response>\n<tool_response>\nwind\n</tool_response>"
    assert text.endswith(f"{call}{results}<assistant>")


def test_earlier_tool_calls_are_rendered_even_if_the_request_has_no_tools(open_prompt):
    text = rendered(open_prompt(PLAIN), HISTORY)
    assert "# Tools" not in text
    assert "<tool_call>" in text


def test_a_template_that_reads_tools_from_the_system_message_gets_them_there(open_prompt):
    text = rendered(open_prompt(PHI), [USER], [TOOL])
    assert text.startswith('<system>|tool|[{"name": "weather"')


def test_messages_without_tools_are_rendered_unchanged(open_prompt):
    assert rendered(open_prompt(PLAIN), [USER]) == "<user>Hi<assistant>"


def test_template_kwargs_do_not_override_reserved_variables(open_prompt):
    prompt = open_prompt("{{ messages[0].content }}{{ tools is none }}{{ effort }}{{ add_generation_prompt }}")
    text = rendered(prompt, [USER], kwargs={"effort": "high", "messages": "x", "add_generation_prompt": False})
    assert text == "HiTruehighTrue"


def test_think_tag_that_the_template_leaves_open_is_the_reasoning_prefix(open_prompt):
    assert (
        open_prompt("{{ messages[0].content }}<assistant><think>\n").from_messages([USER]).reasoning_prefix
        == "<think>\n"
    )
    assert open_prompt("{{ messages[0].content }}<think>\n\n</think>\n\n").from_messages([USER]).reasoning_prefix == ""
    assert reasoning_prefix_of("<think> <assistant>") == ""


def test_only_visible_special_tokens_appear_in_the_output(open_prompt):
    vocabulary = open_prompt(PLAIN).vocabulary
    ids = vocabulary.encode("ü[CALL]a[END]")
    detokenizer = vocabulary.detokenizer(("[CALL]", "<not there>"))
    assert "".join(map(detokenizer.push, ids)) + detokenizer.flush() == "ü[CALL]a"
    plain = vocabulary.detokenizer()
    assert "".join(map(plain.push, ids)) + plain.flush() == "üa"
