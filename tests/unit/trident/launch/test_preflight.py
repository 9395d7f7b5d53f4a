"""Tests of the startup checks, whose error messages name the problem and its fix."""

import os
import platform
import socket
import sys

import pytest

from frontend.gateway.key_records import KeyRecords, NewKey
from frontend.gateway.keys import Pepper
from frontend.gateway.store.database import Store
from frontend.settings import Settings, SettingsError
from tests.support.stack import free_ports
from trident.launch import preflight
from trident.launch.preflight import LaunchError, check_embedded, check_frontend, check_gateway


@pytest.fixture
def settings(tmp_path):
    port, http, grpc, metrics = free_ports(4)
    return Settings(
        port=port, triton_http_port=http, triton_grpc_port=grpc, triton_metrics_port=metrics, cache=tmp_path
    )


def test_checks_pass_on_this_machine(settings):
    check_embedded(settings)
    check_frontend(settings)


@pytest.mark.parametrize(("system", "machine"), [("Darwin", "arm64"), ("Linux", "aarch64"), ("Windows", "AMD64")])
def test_unsupported_platform_is_rejected(settings, monkeypatch, system, machine):
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    with pytest.raises(LaunchError, match=rf"{system} on {machine}.*--triton HOST:PORT"):
        check_embedded(settings)


@pytest.mark.parametrize("version", ["glibc 2.31", None])
def test_unsupported_libc_is_rejected(settings, monkeypatch, version):
    monkeypatch.setattr(os, "confstr", lambda _: version)
    with pytest.raises(LaunchError, match=r"requires glibc 2\.35"):
        check_embedded(settings)


def test_unsupported_python_version_is_rejected(settings, monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 13, 0, "final", 0))
    with pytest.raises(LaunchError, match=r"Python 3\.11 or 3\.12 is required"):
        check_embedded(settings)


def test_missing_libpython_is_reported(settings, monkeypatch):
    monkeypatch.setattr(preflight, "libpython_folder", lambda: None)
    with pytest.raises(LaunchError, match=r"libpython3\.1\d\.so\.1\.0 was not found.*apt install"):
        check_embedded(settings)


def test_missing_triton_wheel_is_reported(settings, monkeypatch):
    monkeypatch.setattr(preflight, "find_spec", lambda _: None)
    with pytest.raises(LaunchError, match="make install"):
        check_embedded(settings)


@pytest.mark.parametrize("name", ["triton_http_port", "triton_grpc_port", "triton_metrics_port"])
def test_triton_port_in_use_is_reported_with_its_flag(settings, name):
    with socket.create_server(("127.0.0.1", getattr(settings, name))):
        flag = "--" + name.replace("_", "-")
        with pytest.raises(LaunchError, match=rf"trident stop.*{flag}"):
            check_embedded(settings)


def test_frontend_port_in_use_is_reported_with_its_flag(settings):
    with socket.create_server(("127.0.0.1", settings.port)), pytest.raises(LaunchError, match="--port"):
        check_frontend(settings)


class TestGateway:
    @pytest.fixture
    def options(self, tmp_path):
        return {"cache": tmp_path, "data": tmp_path / "data"}

    def test_nothing_is_checked_without_keys_limits_and_store(self, options, monkeypatch):
        monkeypatch.setattr(preflight.subprocess, "run", None)
        assert check_gateway(Settings(**options)) == 0

    @pytest.mark.parametrize(
        ("further", "message"),
        [
            ({"workers": 2, "rate_limits": {"global": {"requestsPerDay": 5}}}, r"need Redis \(--redis-url\)"),
            (
                {"rate_limits": {"global": {"rate": 0}}},
                r"^rate_limits: rateLimit\.rate: Input should be greater than 0$",
            ),
            ({"rate_limits": {"globl": {}}}, "unknown key 'globl'"),
            ({"database_url": "postgresql://h:port/x"}, "not valid"),
        ],
    )
    def test_invalid_settings_are_rejected(self, options, further, message):
        with pytest.raises(LaunchError, match=message):
            check_gateway(Settings(**options, **further))

    def test_admin_key_file_must_have_a_key(self, options, tmp_path):
        file = tmp_path / "key"
        for content in ("short", None):
            if content:
                file.write_text(content, encoding="utf-8")
            else:
                file.unlink()
            with pytest.raises(LaunchError, match=r"20 to 200 printable ASCII characters|No such file"):
                check_gateway(Settings(**options, admin_key_file=file))

    def test_keys_with_limits_need_redis_too(self, options):
        settings = Settings(**options)
        records = KeyRecords(Store(settings.store_url, in_threads=False), Pepper(settings.pepper_path))
        records.create(NewKey(keyId="a", parallelRequests=2), "me")
        assert check_gateway(settings) == 0
        with pytest.raises(LaunchError, match="need Redis"):
            check_gateway(Settings(**options, workers=2))
        settings.pepper_path.write_bytes(b"x" * 32)
        with pytest.raises(LaunchError, match="is not the one"):
            check_gateway(settings)
        settings.pepper_path.unlink()
        with pytest.raises(LaunchError, match="is missing"):
            check_gateway(settings)

    def test_missing_database_of_keys_is_noticed(self, options):
        settings = Settings(**options)
        KeyRecords(Store(settings.store_url, in_threads=False), Pepper(settings.pepper_path)).create(NewKey(), "me")
        for file in settings.data_folder.glob("trident.db*"):
            file.unlink()
        with pytest.raises(LaunchError, match=r"trident\.db is missing, although there were API keys"):
            check_gateway(settings)

    def test_passwords_are_not_printed(self, options):
        with pytest.raises(SettingsError) as raised:
            Settings(**options, database_url="postgres://user:SECRET@host/db")
        assert "SECRET" not in str(raised.value)

    def test_database_that_does_not_respond_is_a_warning(self, options, capsys):
        assert check_gateway(Settings(**options, database_url="postgresql://127.0.0.1:1/x")) == 0
        assert "requests are rejected until it does" in capsys.readouterr().out
