"""The modules of contract/: constraints, options, parameters, chat templates and text helpers."""

import logging

import pytest

from contract.byte_alphabet import byte_alphabet
from contract.chat_template import ChatTemplate, TemplateRejected, load_chat_template
from contract.constraints import (
    AnyOfConstraint,
    ChoiceConstraint,
    GrammarConstraint,
    JSONObjectConstraint,
    JSONSchemaConstraint,
    RegexConstraint,
    ToolCallsConstraint,
    ToolCallTag,
    constraint_from_json,
    constraint_to_json,
)
from contract.model_text import suffix_overlap
from contract.options import SpeechOptions
from contract.parameters import SegmentationParameters, TranscriptionParameters, read_parameters

CALLS = ToolCallsConstraint([ToolCallTag("<a>", {"type": "object"}, "</a>")], "\n", max_calls=8)
CONSTRAINTS = [
    JSONObjectConstraint("response_format"),
    JSONSchemaConstraint({"type": "string"}, "guided_json", strict=False),
    RegexConstraint("a+", "guided_regex"),
    ChoiceConstraint(["a", "b"], "guided_choice"),
    GrammarConstraint('root ::= "a"', "guided_grammar"),
    CALLS,
    AnyOfConstraint([CALLS, RegexConstraint("a", "guided_regex")], "tools"),
]
WHISPER = {
    "engine": "ctranslate2",
    "device": "CPU",
    "compute_type": "int8",
    "precision": "f32",
    "threads": "0",
    "batch_size": "4",
    "beam_size": "5",
    "block_seconds": "120",
    "max_seconds": "14400",
    "queue_size": "16",
}


@pytest.mark.parametrize("constraint", CONSTRAINTS, ids=lambda constraint: type(constraint).__name__)
def test_constraint_survives_a_json_round_trip(constraint):
    assert constraint_from_json(constraint_to_json(constraint)) == constraint


def test_unknown_constraint_kind_raises_key_error():
    with pytest.raises(KeyError):
        constraint_from_json({"kind": "magic", "param": "x"})


def test_options_survive_a_json_round_trip_and_unknown_options_are_rejected():
    options = SpeechOptions(voice="né", speed=1.5)
    assert SpeechOptions.from_json(options.to_json()) == options
    with pytest.raises(TypeError):
        SpeechOptions.from_json('{"pitch": 2}')


def test_parameters_are_converted_and_missing_or_invalid_ones_are_rejected():
    texts = {
        "device": "CPU",
        "threads": "2",
        "parallel": "1",
        "batch_size": "8",
        "size": "320",
        "mean": "[0.5, 0.5, 0.5]",
    }
    texts |= {"std": "[1, 1, 1]", "sigmoid": "false", "max_pixels": "100", "queue_size": "4"}
    parameters = read_parameters(SegmentationParameters, texts)
    assert (parameters.threads, parameters.mean, parameters.sigmoid) == (2, [0.5, 0.5, 0.5], False)
    with pytest.raises(ValueError, match="lacks the parameter 'size'"):
        read_parameters(SegmentationParameters, {name: text for name, text in texts.items() if name != "size"})
    with pytest.raises(ValueError, match="'maybe' is not a valid value of the parameter 'sigmoid'"):
        read_parameters(SegmentationParameters, texts | {"sigmoid": "maybe"})


def test_old_name_of_a_parameter_is_read_with_a_warning(caplog):
    texts = {name: text for name, text in WHISPER.items() if name != "max_seconds"} | {
        "most_seconds": "60"  # wording: allow
    }
    with caplog.at_level(logging.WARNING):
        assert read_parameters(TranscriptionParameters, texts).max_seconds == 60
    assert "'most_seconds' is now called 'max_seconds'" in caplog.text  # wording: allow
    # If both names are present, an operator has set the old name and the export has kept it, so its value is used.
    assert read_parameters(TranscriptionParameters, texts | {"max_seconds": "5"}).max_seconds == 60


def test_chat_template_and_its_special_tokens_are_loaded(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text(
        '{"bos_token": {"content": "<s>"}, "eos_token": "</s>", "chat_template": "{{ bos_token }}你{{ eos_token }}"}',
        encoding="utf-8",
    )
    assert load_chat_template(tmp_path).render([]) == "<s>你</s>"
    (tmp_path / "tokenizer_config.json").write_text(
        '{"chat_template": [{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}]}',
        encoding="utf-8",
    )
    assert load_chat_template(tmp_path).render([]) == "a"
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": [{"name": "rag", "template": "c"}]}', "utf-8")
    with pytest.raises(KeyError):
        load_chat_template(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("<｜User｜>{{ messages[0].content }}", encoding="utf-8")
    assert load_chat_template(tmp_path).render([{"content": "好"}]) == "<｜User｜>好"


@pytest.mark.parametrize("source", ["{{ raise_exception('no') }}", "{{ messages[3].content.x }}", "{{ 1 / 0 }}"])
def test_any_exception_in_a_template_raises_template_rejected(source):
    with pytest.raises(TemplateRejected, match="rejects these messages"):
        ChatTemplate(source).render([])


def test_json_in_templates_is_not_escaped_for_html():
    template = ChatTemplate("{{ x | tojson(separators=(',', ':'), sort_keys=true) }}")
    assert template.render([], kwargs={"x": {"b": "<é>", "a": 1}}) == '{"a":1,"b":"<é>"}'


@pytest.mark.parametrize(
    ("text", "tag", "length"), [("ab<th", "<think>", 3), ("<", "<", 0), ("", "x", 0), ("aa", "aab", 2)]
)
def test_suffix_overlap_is_the_length_of_the_partial_tag_at_the_end_of_the_text(text, tag, length):
    assert suffix_overlap(text, tag) == length


def test_byte_alphabet_has_every_byte_once():
    assert sorted(byte_alphabet().values()) == list(range(256))
    assert byte_alphabet()["A"] == 65
