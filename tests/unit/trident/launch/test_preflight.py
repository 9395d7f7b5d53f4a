"""Tests of the startup checks, whose error messages name the problem and its fix."""

import os
import platform
import socket
import sys

import pytest

from frontend.settings import Settings
from tests.support.stack import free_ports
from trident.launch import preflight
from trident.launch.preflight import LaunchError, check_embedded, check_frontend


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
