"""Instances behind a DNS name: found, changed, and kept while the name cannot be resolved."""

import socket

import pytest

from frontend.gateway.configuration import configuration_of, effective_instances, read_configuration
from frontend.settings import Settings, SettingsError
from frontend.triton.instances_file import current_instances
from trident.launch.discovery import Discovery


@pytest.fixture
def settings(tmp_path):
    settings = Settings(cache=tmp_path, discover="tritons:8000")
    settings.instances_file.parent.mkdir(parents=True)
    return settings


@pytest.fixture
def dns(monkeypatch):
    """Return a list with the addresses of the name, which tests may change."""
    addresses = []

    def resolve(host, port, **_):
        if not addresses:
            raise socket.gaierror(-2, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return addresses


def found(settings):
    return [each.address.base_url for each in current_instances(settings)]


def test_addresses_are_followed(settings, dns, capsys):
    discovery = Discovery(settings)
    discovery._resolve()
    assert found(settings) == []
    assert "cannot be resolved yet" in capsys.readouterr().out
    dns += ["10.0.0.2", "10.0.0.1", "10.0.0.1"]
    discovery._resolve()
    assert found(settings) == ["http://10.0.0.1:8000", "http://10.0.0.2:8000"]
    assert current_instances(settings)[0].address.grpc == "10.0.0.1:8001"
    dns[:] = ["fd00::7"]
    discovery._resolve()
    assert found(settings) == ["http://[fd00::7]:8000"]
    assert capsys.readouterr().out.count("has the Tritons") == 2


def test_instances_are_kept_while_the_name_cannot_be_resolved(settings, dns):
    discovery = Discovery(settings)
    dns.append("10.0.0.1")
    discovery._resolve()
    dns.clear()
    discovery._resolve()
    assert found(settings) == ["http://10.0.0.1:8000"]


def test_a_stored_configuration_has_no_discovered_instances_but_they_are_used(settings, dns):
    dns.append("10.0.0.1")
    Discovery(settings)._resolve()
    configuration = configuration_of(settings)
    assert not configuration.instances
    assert [each.id for each in effective_instances(settings, configuration)] == ["@http://10.0.0.1:8000"]
    content = configuration.model_dump() | {"instances": [{"baseUrl": "http://10.0.0.9:8000"}]}
    ids = [each.id for each in effective_instances(settings, read_configuration(content))]
    assert ids == ["@http://10.0.0.9:8000", "@http://10.0.0.1:8000"]


@pytest.mark.parametrize("other", [{"triton": "a:8001"}, {"instances": ("http://a:8000",)}])
def test_other_ways_to_name_tritons_are_excluded(other):
    with pytest.raises(SettingsError, match=r"--discover exclude each other|and --discover"):
        Settings(discover="tritons:8000", **other)
