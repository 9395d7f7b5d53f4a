"""Settings from flags, environment variables and the settings file."""

import dataclasses
from pathlib import Path

import pytest

from frontend.settings import GROUPS, Settings, SettingsError, load_settings


@pytest.fixture(autouse=True)
def no_configuration(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for field in dataclasses.fields(Settings):
        monkeypatch.delenv(f"TRIDENT_{field.name.upper()}", raising=False)
    monkeypatch.delenv("TRIDENT_CONFIG", raising=False)


def test_flags_override_the_environment_and_the_environment_overrides_the_file(monkeypatch, tmp_path):
    (tmp_path / "trident.toml").write_text(
        'port = 1001\nhost = "0.0.0.0"\n[aliases]\nmine = "chat"\n', encoding="utf-8"
    )
    assert load_settings().port == 1001
    monkeypatch.setenv("TRIDENT_PORT", "1002")
    assert load_settings().port == 1002
    settings = load_settings({"port": "1003"})
    assert (settings.port, settings.host) == (1003, "0.0.0.0")
    assert settings.all_aliases["mine"] == "chat"
    assert settings.all_aliases["gpt-4o"] == "chat"


def test_the_variable_trident_config_names_the_settings_file(monkeypatch, tmp_path):
    (tmp_path / "other.toml").write_text("port = 1004\n", encoding="utf-8")
    monkeypatch.setenv("TRIDENT_CONFIG", str(tmp_path / "other.toml"))
    assert load_settings().port == 1004
    monkeypatch.setenv("TRIDENT_CONFIG", str(tmp_path / "missing.toml"))
    with pytest.raises(SettingsError, match=r"TRIDENT_CONFIG: '.*missing\.toml' does not exist"):
        load_settings()


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
def test_allow_files_supports_folder_names_with_special_characters(given, folders):
    assert load_settings({"allow_files": tuple(given)}).allow_files == tuple(map(Path, folders))


def test_list_items_in_the_settings_file_are_not_split_at_spaces_or_commas(tmp_path, monkeypatch):
    (tmp_path / "trident.toml").write_text('allow_files = ["/srv/my files", "/a,b"]', encoding="utf-8")
    monkeypatch.setenv("TRIDENT_CONFIG", str(tmp_path / "trident.toml"))
    assert load_settings().allow_files == (Path("/srv/my files"), Path("/a,b"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"port = [", "is not valid TOML"),
        (b"\xff", "is not valid TOML"),
        (b"drain_seconds = 1.9", "drain_seconds in .*'1.9'"),
    ],
)
def test_a_settings_file_with_invalid_toml_or_an_invalid_value_is_rejected(tmp_path, monkeypatch, content, message):
    (tmp_path / "trident.toml").write_bytes(content)
    monkeypatch.setenv("TRIDENT_CONFIG", str(tmp_path / "trident.toml"))
    with pytest.raises(SettingsError, match=message):
        load_settings()


def test_the_default_http_port_of_a_remote_triton_is_one_below_its_grpc_port():
    assert load_settings({"port": 8080, "triton": "gpu:10102"}).triton_http_port == 10101
    # The default ports of a remote Triton are derived from its gRPC port, not from the API port, so the API port may be
    # 65535. A child process accepts these settings too.
    settings = load_settings({"port": 65535, "triton": "gpu:8001"})
    assert load_settings_from(settings) == settings


def load_settings_from(settings):
    """Return the settings that a child process loads from `settings.as_environment()`."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.as_environment().items():
            patch.setenv(name, value)
        return load_settings()


@pytest.mark.parametrize("given", ["a b", "a,b", ("a", "b"), ("a b",)])
def test_models_in_a_string_or_tuple_are_split_at_spaces_and_commas(given):
    assert load_settings({"models": given}).models == ("a", "b")


def test_the_default_ports_of_triton_follow_the_api_port():
    settings = load_settings({"port": 8000})
    assert (settings.triton_http_port, settings.triton_grpc_port, settings.triton_metrics_port) == (8001, 8002, 8003)
    settings = load_settings({"port": 8000, "triton_grpc_port": "9"})
    assert (settings.triton_http_port, settings.triton_grpc_port) == (8001, 9)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"port": "0"}, "--port"),
        ({"port": "99999"}, "--port"),
        ({"port": "1.5"}, "--port"),
        ({"triton": "nowhere"}, "--triton"),
        ({"unknown_model": "guess"}, "--unknown-model"),
        ({"request_timeout": "0"}, "--request-timeout"),
        ({"request_timeout": "nan"}, "--request-timeout"),
        ({"aliases": "[1"}, "--aliases"),
        ({"public_url": "ftp://x"}, "--public-url"),
        ({"port": "5", "triton_http_port": "5"}, "must be distinct"),
        ({"port": "65534"}, "from 1 to 65535"),
    ],
)
def test_invalid_flags_are_rejected(flags, message):
    with pytest.raises(SettingsError, match=message):
        load_settings(flags)


def test_an_invalid_variable_or_key_is_named_in_the_error(monkeypatch, tmp_path):
    monkeypatch.setenv("TRIDENT_WORKERS", "few")
    with pytest.raises(SettingsError, match="TRIDENT_WORKERS: 'few'"):
        load_settings()
    monkeypatch.delenv("TRIDENT_WORKERS")
    (tmp_path / "trident.toml").write_text("port = true\n", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"port in trident\.toml"):
        load_settings()


@pytest.mark.parametrize(("content", "message"), [("prot = 5\n", "unknown key 'prot'"), ("port =", "not valid TOML")])
def test_unknown_keys_and_invalid_toml_are_rejected(tmp_path, content, message):
    (tmp_path / "trident.toml").write_text(content, encoding="utf-8")
    with pytest.raises(SettingsError, match=message):
        load_settings()


def test_pid_files_are_in_the_cache_and_differ_by_port(tmp_path):
    a, b = (load_settings({"port": port, "cache": tmp_path}).pid_file for port in (1001, 1101))
    assert a != b
    assert tmp_path in a.parents


def test_a_child_process_gets_the_same_settings(monkeypatch, tmp_path):
    (tmp_path / "trident.toml").write_text("port = 7\n", encoding="utf-8")
    given = {
        "port": 1003,
        "models": ("a", "b"),
        "allow_files": tuple(map(Path, ("/my sounds", '/odd"name', "/back\\slash"))),
    }
    given |= {"aliases": {"mine": "chat", "gpt-4o": ""}, "transcribe_audio": True, "triton": "other:8001"}
    settings = load_settings(given)
    for name, value in settings.as_environment().items():
        monkeypatch.setenv(name, value)
    assert load_settings() == settings


def test_every_setting_has_a_group_and_a_help_text():
    for field in dataclasses.fields(Settings):
        assert field.metadata["group"] in GROUPS
        assert field.metadata["help"]
