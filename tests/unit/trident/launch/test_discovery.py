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
        kinds = [(socket.AF_INET6 if ":" in address else socket.AF_INET, address) for address in addresses]
        return [(kind, socket.SOCK_STREAM, 6, "", (address, port)) for kind, address in kinds]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return addresses


def found(settings):
    return [each.address.base_url for each in current_instances(settings)]


def test_addresses_are_followed(settings, dns, capsys):
    discovery = Discovery(settings)
    discovery.start()
    discovery.check()
    assert found(settings) == []
    assert capsys.readouterr().out.count("cannot be found") == 1
    dns += ["10.0.0.2", "10.0.0.1", "10.0.0.1"]
    discovery.check()
    assert found(settings) == ["http://10.0.0.1:8000", "http://10.0.0.2:8000"]
    assert current_instances(settings)[0].address.grpc == "10.0.0.1:8001"
    dns[:] = ["fd00::7"]
    discovery.check()
    assert found(settings) == ["http://[fd00::7]:8000"]
    assert capsys.readouterr().out.count("has the Tritons") == 2
    dns += ["10.0.0.9"]  # of the same Triton
    discovery.check()
    assert found(settings) == ["http://10.0.0.9:8000"]


def test_instances_are_kept_while_the_name_cannot_be_resolved(settings, dns):
    discovery = Discovery(settings)
    dns.append("10.0.0.1")
    discovery.check()
    dns.clear()
    discovery.check()
    assert found(settings) == ["http://10.0.0.1:8000"]


def test_a_stored_configuration_has_no_discovered_instances_but_they_are_used(settings, dns):
    dns.append("10.0.0.1")
    Discovery(settings).check()
    configuration = configuration_of(settings)
    assert not configuration.instances
    assert [each.id for each in effective_instances(settings, configuration)] == ["@http://10.0.0.1:8000"]
    content = configuration.model_dump() | {"instances": [{"baseUrl": "http://10.0.0.9:8000"}]}
    ids = [each.id for each in effective_instances(settings, read_configuration(content))]
    assert ids == ["@http://10.0.0.9:8000", "@http://10.0.0.1:8000"]


def test_named_instances_are_used_too(tmp_path, dns):
    dns.append("10.0.0.1")
    settings = Settings(cache=tmp_path, discover="tritons:8000", instances=("http://10.0.0.7:8000",))
    settings.instances_file.parent.mkdir(parents=True)
    discovery = Discovery(settings)
    discovery.start()
    assert found(settings) == ["http://10.0.0.7:8000", "http://10.0.0.1:8000"]
    stored = configuration_of(settings)
    assert [each.baseUrl for each in stored.instances] == ["http://10.0.0.7:8000"]
    assert [each.id for each in effective_instances(settings, stored)] == [
        "@http://10.0.0.7:8000",
        "@http://10.0.0.1:8000",
    ]
    # One that was removed through the management API does not return.
    without = read_configuration(stored.model_dump() | {"instances": []})
    assert [each.id for each in effective_instances(settings, without)] == ["@http://10.0.0.1:8000"]


def test_wrong_settings_are_rejected():
    with pytest.raises(SettingsError, match="--discover exclude each other"):
        Settings(discover="tritons:8000", triton="a:8001")
    with pytest.raises(SettingsError, match="the port must be"):
        Settings(discover="tritons:65534")
