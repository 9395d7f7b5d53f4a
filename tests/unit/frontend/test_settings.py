"""Flags over environment over file."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from frontend.settings import load_settings


@pytest.fixture(autouse=True)
def nothing_configured(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("TRIDENT_CONFIG", "TRIDENT_PORT", "TRIDENT_MODELS"):
        monkeypatch.delenv(name, raising=False)


def test_precedence(monkeypatch, tmp_path):
    (tmp_path / "trident.toml").write_text(
        'port = 1001\nhost = "0.0.0.0"\n[aliases]\nmine = "chat"\n', encoding="utf-8"
    )
    assert load_settings([]).port == 1001
    monkeypatch.setenv("TRIDENT_PORT", "1002")
    assert load_settings([]).port == 1002
    settings = load_settings(["--port", "1003"])
    assert (settings.port, settings.host) == (1003, "0.0.0.0")
    assert settings.all_aliases["mine"] == "chat"
    assert settings.all_aliases["gpt-4o"] == "chat"


def test_a_file_elsewhere(monkeypatch, tmp_path):
    (tmp_path / "other.toml").write_text("port = 1004\n", encoding="utf-8")
    monkeypatch.setenv("TRIDENT_CONFIG", str(tmp_path / "other.toml"))
    assert load_settings([]).port == 1004


@pytest.mark.parametrize(
    ("given", "folders"),
    [
        (['"/my sounds" /b'], ["/my sounds", "/b"]),
        ([r"/my\ sounds", "/b"], ["/my sounds", "/b"]),
        (['"/a,b",/c'], ["/a,b", "/c"]),
        (["/home/o'brien /#x"], ["/home/o'brien", "/#x"]),
        (['"" ,'], []),
    ],
)
def test_a_folder_may_have_any_name(given, folders):
    flags = [word for value in given for word in ("--allow-files", value)]
    assert load_settings(flags).allow_files == tuple(map(Path, folders))


@pytest.mark.parametrize("given", [["--models", "a b"], ["--models", "a,b"], ["--models", "a", "--models", "b"]])
def test_models_as_people_write_them(given):
    assert load_settings(given).models == ("a", "b")


@pytest.mark.parametrize(
    "wrong",
    [
        ["--port", "0"],
        ["--port", "99999"],
        ["--triton", "nowhere"],
        ["--unknown-model", "guess"],
        ["--request-timeout", "0"],
        ["--port", "5", "--triton-http-port", "5"],
    ],
)
def test_wrong_values_are_refused(wrong):
    with pytest.raises(ValidationError):
        load_settings(wrong)


def test_an_unknown_flag_is_refused(capsys):
    with pytest.raises(SystemExit):
        load_settings(["--prot", "5"])


def test_an_unknown_key_of_the_file_is_refused(tmp_path):
    (tmp_path / "trident.toml").write_text("prot = 5\n", encoding="utf-8")
    with pytest.raises(ValidationError):
        load_settings([])


def test_the_running_instances_files_are_told_apart_by_port(tmp_path):
    a, b = (load_settings(["--port", port, "--cache", str(tmp_path)]).pid_file for port in ("1001", "1002"))
    assert a != b
    assert tmp_path in a.parents
