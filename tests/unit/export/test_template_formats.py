"""Tool format and reasoning, inferred from the chat templates of well-known families.

Each text here has the parts of a family's template that write tool calls and reasoning.
"""

import pytest

from export.converters.template_formats import infer_formats, unsupported_format

HERMES = "<tools>{{ tool | tojson }}</tools> return a json object within <tool_call></tool_call> XML tags"
DEEPSEEK = (
    "{{ '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>' + tool['type'] + '<｜tool▁sep｜>' + name + '\\n```json\\n' }}"
)
TEMPLATES = {
    "Qwen2.5": (HERMES, {}),
    "Qwen3": (HERMES + "{{ '<think>\\n\\n</think>\\n\\n' }}", {"reasoning": "think"}),
    "SmolLM3": ("<think> " + HERMES, {"reasoning": "think"}),
    "Granite 4": ("<|start_of_role|>" + HERMES, {}),
    "Hermes 3": ("<|im_start|>" + HERMES, {}),
    "Granite 3": ("{{ '<|start_of_role|>assistant<|end_of_role|><|tool_call|>' }}", {"tool_format": "phi"}),
    "Phi-4-mini": ("{{ '<|tool|>' + message['tools'] + '<|/tool|>' }}", {"tool_format": "phi"}),
    "Llama 3.1": ("{{ '<|start_header_id|>' }}{{ '<|python_tag|>' }}", {"tool_format": "llama3"}),
    "Llama 3.2": ("<|start_header_id|> {{ '\"parameters\": ' }}", {"tool_format": "llama3"}),
    "Mistral 7B v0.3": ("{{ '[TOOL_CALLS] [' }}", {"tool_format": "mistral"}),
    "Mistral Small 3.2": ("{{ '[TOOL_CALLS]' + name + '[ARGS]' }}", {"tool_format": "mistral-v11"}),
    "DeepSeek V3": (DEEPSEEK, {"tool_format": "deepseek"}),
    "DeepSeek R1": (DEEPSEEK + "{{ '<think>\\n' }}", {"tool_format": "deepseek", "reasoning": "think"}),
    "DeepSeek V3.1": (
        "{{ '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>' + name + '<｜tool▁sep｜>' }}</think>",
        {"tool_format": "deepseek-v3.1", "reasoning": "think"},
    ),
    "Gemma 3": ("{{ '<start_of_turn>' + role }}", {}),
    "MiniCPM 4": ("<|im_start|>", {}),
}


@pytest.mark.parametrize("family", TEMPLATES)
def test_formats_are_inferred(family):
    template, expected = TEMPLATES[family]
    assert infer_formats(template) == expected
    assert unsupported_format(template) is None


@pytest.mark.parametrize(
    ("template", "family"),
    [
        ("<tool_call>{{ name }}<arg_key>", "GLM 4.5"),
        ("<tool_call>\n<function={{ name }}>", "Qwen3-Coder"),
        ("<|start|>assistant<|channel|>analysis", "GPT-OSS"),
        ("<|START_ACTION|>", "Command R7B"),
        ("<|START_OF_TURN_TOKEN|>{{ 'Action:\\n```json\\n[' }}", "Command R"),
        ("<|assistant|>{{ name }}<|observation|>", "GLM 4"),
        ("<|im_start|>assistant<|tool_call_start|>[", "LFM2 and MiniCPM3"),
    ],
)
def test_other_formats_are_reported(template, family):
    assert unsupported_format(template) == family
