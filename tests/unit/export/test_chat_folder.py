"""Chat models in publishers' folders: what a conversion reads, templates, and end tokens."""

import json

import pytest

from export.converters.chat_folder import _write_end_tokens, chat_template
from export.converters.llamacpp import write_template
from export.converters.readable_folder import readable_folder
from export.fetch import ExportError

CONFIG = {
    "auto_map": {"AutoModel": "modeling.X"},
    "rope_parameters": {"rope_theta": 1e6, "rope_type": "yarn", "factor": 4.0},
    "dtype": "bfloat16",
    "text_config": {"auto_map": {}, "rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}},
}


@pytest.fixture
def folder(tmp_path):
    for name in ("model.safetensors", "pytorch_model.bin", "modeling.py", "tokenizer.json", "onnx/model.onnx", "x.pth"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"{}")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    return tmp_path


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def test_conversion_reads_no_code_and_no_pickle_files(folder):
    with readable_folder(folder, {}) as read:
        assert names(read) == ["config.json", "model.safetensors", "tokenizer.json"]
        assert "auto_map" not in (read / "config.json").read_text(encoding="utf-8")
    with readable_folder(folder, {"trust_remote_code": "true"}) as read:
        assert names(read) == ["config.json", "model.safetensors", "modeling.py", "tokenizer.json"]
        assert "auto_map" in (read / "config.json").read_text(encoding="utf-8")
    assert json.loads((folder / "config.json").read_text(encoding="utf-8")) == CONFIG


def test_older_transformers_find_what_newer_ones_wrote(folder):
    with readable_folder(folder, {}) as read:
        config = json.loads((read / "config.json").read_text(encoding="utf-8"))
    assert (config["rope_theta"], config["torch_dtype"]) == (1e6, "bfloat16")
    assert config["rope_scaling"] == {"rope_type": "yarn", "factor": 4.0}
    assert config["text_config"]["rope_theta"] == 5e5
    assert "rope_scaling" not in config["text_config"]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"chat_template.jinja": "file"}, "file"),
        ({"tokenizer_config.json": {"chat_template": "config"}}, "config"),
        ({"chat_template.json": {"chat_template": "json"}}, "json"),
        ({"tokenizer_config.json": {"chat_template": [{"name": "default", "template": "named"}]}}, "named"),
    ],
)
def test_chat_template_is_found(tmp_path, files, expected):
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert chat_template(tmp_path) == expected


def test_model_without_a_template_gets_a_plain_one(tmp_path):
    assert "message.role" in chat_template(tmp_path)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% if %}", "the chat template is not valid"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "does what templates must not do"),
        ("{% for a in range(10000) %}{% for b in range(10000) %}x{% endfor %}{% endfor %}", "loops too often"),
    ],
)
def test_unusable_templates_are_refused(tmp_path, template, message):
    with pytest.raises(ExportError, match=message):
        write_template(template, tmp_path)


def test_end_tokens_are_a_list(tmp_path):
    for generation, config in (({"eos_token_id": 5}, {}), ({}, {"eos_token_id": [5]})):
        _write_end_tokens(tmp_path, generation, config)
        assert json.loads((tmp_path / "generation_config.json").read_text(encoding="utf-8"))["eos_token_id"] == [5]
    for config in ({}, {"eos_token_id": "x"}, {"eos_token_id": []}):
        with pytest.raises(ExportError, match="has a valid 'eos_token_id'"):
            _write_end_tokens(tmp_path, {}, config)
