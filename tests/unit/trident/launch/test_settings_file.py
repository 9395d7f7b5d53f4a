"""The launcher follows the instances in the settings file while Trident runs."""

import json
import os

import click
import pytest

from frontend.gateway.store.database import Store
from frontend.gateway.versions import Versions
from frontend.settings import SettingsError, load_settings
from frontend.triton.instances_file import current_instances
from trident.launch.settings_file import SettingsFile


@pytest.fixture
def file(tmp_path, monkeypatch):
    path = tmp_path / "trident.toml"
    monkeypatch.setenv("TRIDENT_CONFIG", str(path))
    monkeypatch.setenv("TRIDENT_CACHE", str(tmp_path))
    path.write_text('[[instances]]\nbase_url = "http://a"\n', encoding="utf-8")
    return path


@pytest.fixture
def followed(file):
    settings = load_settings()
    settings.run_folder.mkdir(parents=True)
    return settings, SettingsFile(settings, load)


def load():
    try:
        return load_settings()
    except SettingsError as error:
        raise click.UsageError(str(error)) from error


def write(file, text):
    before = file.stat().st_mtime_ns
    file.write_text(text, encoding="utf-8")
    os.utime(file, ns=(before + 10**9, before + 10**9))


def ids(settings):
    return [each.id for each in current_instances(settings)]


def test_nothing_happens_while_the_file_is_unchanged(followed):
    settings, watched = followed
    assert watched.check() == ""
    assert ids(settings) == ["@http://a:8000"]


def test_changed_instances_are_passed_on(file, followed):
    settings, watched = followed
    write(file, '[[instances]]\nbase_url = "http://a"\n[[instances]]\nname = "m"\nbase_url = "http://b"\nweight = 2\n')
    assert watched.check() == "The instances are now @http://a:8000, m@http://b:8000"
    assert ids(settings) == ["@http://a:8000", "m@http://b:8000"]
    assert watched.check() == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[instances]]\nbase_url = "http://a"\nweight = -1\n', "'weight' must be a number above 0"),
        ("[[instances]\n", "not valid TOML"),
        ("no_such_setting = 1\n", "unknown key 'no_such_setting'"),
        ("", "restart Trident to use another Triton"),
    ],
)
def test_invalid_file_changes_nothing(file, followed, text, message):
    settings, watched = followed
    write(file, text)
    assert message in watched.check()
    assert ids(settings) == ["@http://a:8000"]


def test_missing_file_changes_nothing(file, followed):
    settings, watched = followed
    file.unlink()
    assert "does not exist" in watched.check()
    assert ids(settings) == ["@http://a:8000"]


def test_file_of_an_earlier_run_does_not_count(followed):
    settings, _ = followed
    settings.instances_file.write_text(json.dumps([{"base_url": "http://old"}]), encoding="utf-8")
    SettingsFile(settings, load)
    assert ids(settings) == ["@http://a:8000"]


def test_stored_configuration_has_priority(file, followed, tmp_path, monkeypatch):
    monkeypatch.setenv("TRIDENT_DATA", str(tmp_path / "data"))
    settings, _ = followed
    settings = load_settings()
    watched = SettingsFile(settings, load)
    Versions(Store(settings.store_url, in_threads=False)).add(0, {}, "me", "test")
    write(file, '[[instances]]\nbase_url = "http://b"\n')
    assert watched.check() == f"{file} has changed, but version 1 of the configuration applies"
    assert ids(settings) == ["@http://a:8000"]
