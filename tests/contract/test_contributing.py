"""The worked examples in CONTRIBUTING.md: all complete Python files compile, and some examples are run."""

import re
import tomllib

import numpy as np
import pytest

from contract import model_text
from contract.options import SpeechOptions
from contract.parameters import PARAMETERS, SpeechParameters
from export.catalog import Entry
from export.converters import CONVERTERS
from frontend.parsing.pipeline import ParserPipeline
from frontend.parsing.tools.scanner import ToolParser
from tests.contract.test_documents import read


def example(path, language="python"):
    """Return the code of the only example in CONTRIBUTING.md whose first line names `path`."""
    blocks = re.findall(rf"```{language}\n(# {re.escape(path)}.*?)```", read("CONTRIBUTING.md"), re.DOTALL)
    assert len(blocks) == 1
    return blocks[0]


def test_complete_python_examples_compile():
    blocks = re.findall(r"```python\n(.*?)```", read("CONTRIBUTING.md"), re.DOTALL)
    whole = [block for block in blocks if not block.splitlines()[1].startswith("    ")]
    assert len(whole) >= 6
    for block in whole:
        compile(block, "CONTRIBUTING.md", "exec")


def test_catalog_example_is_a_valid_entry():
    table = tomllib.loads(example("export/catalog/e5-small-v2.toml", "toml"))
    entry = Entry(name="e5-small-v2", **table)
    assert entry.converter in CONVERTERS
    assert set(entry.parameters) <= set(PARAMETERS[entry.backend].__dataclass_fields__)


def test_tool_format_example_finds_a_call(monkeypatch):
    monkeypatch.setitem(model_text.TOOL_TAGS, "function-tag", ("<function>", "</function>"))
    names = {}
    exec(example("frontend/parsing/tools/function_tag.py"), names)  # noqa: S102
    pipeline = ParserPipeline([ToolParser(names["FUNCTION_TAG"], {"add"}, None)])
    text = 'Sure. <function>{"name": "add", "arguments": {"a": 1}}</function>'
    events = [event for part in (text[:20], text[20:]) for event in pipeline.push(part)] + pipeline.end()
    kinds = [type(event).__name__ for event in events]
    assert "ToolCallStart" in kinds
    assert "".join(event.text for event in events if type(event).__name__ == "ToolCallArguments") == '{"a": 1}'


def test_speech_engine_example_speaks(tmp_path):
    names = {}
    exec(example("backends/speech/tone_engine.py"), names)  # noqa: S102
    texts = {"engine": "tone", "device": "CPU", "voice": "tone", "voice_aliases": "{}"}
    numbers = dict.fromkeys(("threads", "parallel", "max_characters", "queue_size"), "1")
    from contract.parameters import read_parameters

    engine = names["ToneEngine"](tmp_path, read_parameters(SpeechParameters, texts | numbers))
    voice = engine.voice(SpeechOptions(), None)
    (phonemes,) = voice.phonemes("Hello there.")
    samples = voice.speak(phonemes, 1.0)
    assert samples.dtype == np.float32
    assert len(samples) == len(phonemes) * engine.hop
    with pytest.raises(Exception, match="voice"):
        engine.voice(SpeechOptions("alto"), None)
