"""How an encoder is used, from the files of sentence-transformers."""

import json

import pytest

from export.fetch import ExportError
from export.resolve import Choices, resolve

MODULES = ("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")


@pytest.fixture
def entry_of(tmp_path):
    """Return a function that writes an encoder's folder, and returns its entry."""

    def run(name="tiny", modules=MODULES, pooling=None, sentence=None, prompts=None, precision="auto", **config):
        folder = tmp_path / name
        folder.mkdir()
        known = {"architectures": ["BertModel"], "model_type": "bert", "max_position_embeddings": 512}
        files = {"config.json": known | config, "sentence_bert_config.json": sentence or {}}
        if prompts is not None:
            files["config_sentence_transformers.json"] = {"prompts": prompts}
        if modules is not None:
            files["modules.json"] = [
                {"type": f"sentence_transformers.models.{name}", "path": path} for name, path in modules
            ]
            files["1_Pooling/config.json"] = pooling or {"pooling_mode_mean_tokens": True}
        for file, content in files.items():
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / file).write_text(json.dumps(content), encoding="utf-8")
        (folder / "model.safetensors").write_bytes(b"w" * 100)
        return resolve(str(folder), Choices(tmp_path / "cache", precision=precision)).entry

    return run


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_lasttoken": True, "include_prompt": True}, "last"),
        ({"pooling_mode": "mean"}, "mean"),
    ],
)
def test_pooling_is_read(entry_of, pooling, expected):
    entry = entry_of(pooling=pooling)
    assert (entry.task, entry.backend, entry.converter) == ("embedding", "encoder", "encoder-folder")
    assert (entry.parameters["pooling"], entry.parameters["normalize"]) == (expected, "true")
    assert json.loads(entry.conversion["parameters"])["pooling"] == expected


def test_vectors_are_normalized_only_if_the_publisher_does_so(entry_of):
    assert entry_of(modules=MODULES[:2]).parameters["normalize"] == "false"
    bare = entry_of("bare", modules=None)
    assert (bare.parameters["pooling"], bare.parameters["normalize"]) == ("mean", "true")


@pytest.mark.parametrize(
    ("config", "sentence", "expected"),
    [
        ({}, {}, "512"),
        ({}, {"max_seq_length": 256}, "256"),
        ({"model_type": "xlm-roberta", "max_position_embeddings": 8194}, {}, "8192"),
        ({"max_position_embeddings": 32_768}, {}, "8192"),
        ({"architectures": ["Qwen3Model"], "max_position_embeddings": 32_768}, {}, "2048"),
    ],
)
def test_context_is_the_least_of_the_limits(entry_of, config, sentence, expected):
    assert entry_of(sentence=sentence, **config).parameters["context_length"] == expected


@pytest.mark.parametrize(
    ("name", "prompts", "query", "document"),
    [
        ("tiny", {"query": "Q: ", "passage": "P: "}, "Q: ", "P: "),
        ("multilingual-e5-small", None, "query: ", "passage: "),
        ("multilingual-e5-small", {"query": "Q: "}, "Q: ", ""),
        ("bge-small-zh-v1.5", {}, "为这个句子生成表示以用于检索相关文章：", ""),
        ("tiny", None, "", ""),
    ],
)
def test_prompts_are_those_of_the_publisher(entry_of, name, prompts, query, document):
    parameters = entry_of(name, prompts=prompts).parameters
    assert (parameters.get("query_prompt", ""), parameters.get("document_prompt", "")) == (query, document)


def test_classifier_with_one_label_is_a_reranker(entry_of):
    config = {"architectures": ["XLMRobertaForSequenceClassification"], "num_labels": 1}
    entry = entry_of(modules=None, **config)
    assert (entry.task, entry.parameters["pooling"]) == ("rerank", "none")
    with pytest.raises(ExportError, match="a reranker has one output, and this classifier has 3"):
        entry_of("three", modules=None, **config | {"num_labels": 3})


def test_language_model_reranker_is_recognized_by_its_name(entry_of):
    entry = entry_of("My-Qwen3-Reranker", modules=None, architectures=["Qwen3ForCausalLM"], model_type="qwen3")
    assert (entry.task, entry.conversion["score_tokens"], entry.conversion["precision"]) == ("rerank", "yes no", "f32")
    assert "{query}" in entry.parameters["template"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modules": (*MODULES, ("Dense", "3_Dense"))}, "its module Dense is not supported"),
        ({"pooling": {"pooling_mode_max_tokens": True}}, r"its pooling \(pooling_mode_max_tokens\) is not supported"),
        ({"precision": "int4"}, "encoders have no int4 weights"),
    ],
)
def test_what_cannot_be_served_is_refused(entry_of, options, message):
    with pytest.raises(ExportError, match=message):
        entry_of(**options)


def test_whisper_is_a_transcription_model(entry_of):
    config = {"architectures": ["WhisperForConditionalGeneration"], "model_type": "whisper"}
    entry = entry_of("whisper", modules=None, **config, vocab_size=51_865)
    assert (entry.task, entry.converter) == ("transcription", "whisper-folder")
    assert entry.capabilities == ["translate", "word_timestamps"]
    assert entry_of("english", modules=None, **config, vocab_size=51_864).capabilities == ["word_timestamps"]
