import re

import pytest

from tests.support.suites import FOLDER, fingerprint, load_suites


def test_suites_toml_lists_every_heavy_suite_and_all_inputs_exist():
    suites = load_suites()
    assert set(suites) == {path.stem for path in FOLDER.glob("test_*.py")}
    for inputs in suites.values():
        assert len(fingerprint(inputs)) == 64


def test_inputs_include_the_support_modules_that_a_suite_imports():
    for name, inputs in load_suites().items():
        imported = re.findall(r"^from tests\.support\.(\w+)", (FOLDER / f"{name}.py").read_text("utf-8"), re.MULTILINE)
        assert {f"tests/support/{module}.py" for module in imported} <= set(inputs), name


def test_fingerprint_depends_on_file_contents_and_names_and_rejects_missing_inputs(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a").write_text("1", encoding="utf-8")
    first = fingerprint(["folder"], tmp_path)
    (tmp_path / "folder" / "a").write_text("2", encoding="utf-8")
    second = fingerprint(["folder"], tmp_path)
    (tmp_path / "folder" / "a").rename(tmp_path / "folder" / "b")
    assert len({first, second, fingerprint(["folder"], tmp_path)}) == 3
    with pytest.raises(FileNotFoundError):
        fingerprint(["missing"], tmp_path)
