"""The setting `instances`: what is accepted, the ports that follow, and what is rejected."""

import json

import pytest

from frontend.instance_config import InstanceConfig, TritonAddress, parse_instances
from frontend.settings import Settings, SettingsError, load_settings


@pytest.mark.parametrize(
    ("text", "name", "address"),
    [
        ("http://h1:9000", "", TritonAddress("h1", 9000, 9001, 9002)),
        ("grpc://h1:9001", "", TritonAddress("h1", 9000, 9001, 9002)),
        ("http://h1", "", TritonAddress("h1", 8000, 8001, 8002)),
        ("grpc://h1", "", TritonAddress("h1", 8000, 8001, 8002)),
        ("chat@http://10.0.0.1:8000/", "chat", TritonAddress("10.0.0.1", 8000, 8001, 8002)),
        ("http://[::1]:8000", "", TritonAddress("::1", 8000, 8001, 8002)),
        ("http://Triton.EXAMPLE", "", TritonAddress("triton.example", 8000, 8001, 8002)),
    ],
)
def test_text_is_a_name_and_a_url(text, name, address):
    assert parse_instances([text]) == (InstanceConfig(address, name),)


def test_ports_can_be_given():
    entry = {"base_url": "http://h:1", "grpc_port": 2, "metrics_port": 3, "weight": 2, "enabled": False, "name": "m"}
    assert parse_instances([entry]) == (InstanceConfig(TritonAddress("h", 1, 2, 3), "m", 2.0, False),)


def test_settings_pass_instances_on_to_the_frontend(monkeypatch):
    entries = ({"base_url": "http://h:1", "grpc_port": 5, "weight": 0.5}, {"base_url": "http://g"})
    settings = Settings(instances=entries)
    assert [each.id for each in settings.instances] == ["@http://h:1", "@http://g:8000"]
    assert not settings.starts_triton
    for name, value in settings.as_environment().items():
        monkeypatch.setenv(name, value)
    assert load_settings().instances == settings.instances


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("http://user:secret@h:1", "must not contain a user name or password"),
        ({"base_url": "http://user@h:1"}, "must not contain a user name or password"),
        ("https://h:1", "must be http://HOST:PORT or grpc://HOST:PORT"),
        ("http://h:1/v2", "must be http://HOST:PORT"),
        ("http://h:1?x=1", "must be http://HOST:PORT"),
        ("h:1", "must be http://HOST:PORT"),
        ("http://h:99999", "not from 1 to 65535"),
        ({}, "'base_url' is missing"),
        ({"base_url": "http://h", "weight": -1}, "'weight' must be a number above 0, up to 1000, not -1"),
        ({"base_url": "http://h", "weight": 0}, "'weight' must be a number above 0"),
        ({"base_url": "http://h", "weight": True}, "'weight' must be a number above 0"),
        ({"base_url": "http://h", "weight": float("nan")}, "'weight' must be a number above 0"),
        ({"base_url": "http://h", "enabled": "yes"}, "'enabled' must be true or false"),
        ({"base_url": "http://h", "name": 1}, "'name' is not a string"),
        ({"base_url": "http://h", "grpc_port": "8001"}, "'grpc_port' is not an integer"),
        ({"base_url": "grpc://h:1001", "grpc_port": 7}, "'grpc_port' contradicts 'base_url'"),
        ({"base_url": "http://h", "url": "x"}, "unknown key 'url'"),
        (7, "7 is not a table"),
        ("[1", "not valid JSON"),
    ],
)
def test_invalid_entry_is_an_error_that_says_what_is_wrong(entry, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        parse_instances([entry])


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (["http://h", "http://h:8000"], "occurs twice"),
        (["m@http://h", "m@http://h:8000"], "occurs twice"),
        (["http://h", "m@http://h"], "'m' cannot be another"),
        (
            [{"base_url": "http://h", "name": "a"}, {"base_url": "http://h", "name": "b", "grpc_port": 9}],
            "different ports",
        ),
    ],
)
def test_contradicting_entries_are_an_error(entries, message):
    with pytest.raises(SettingsError, match=message):
        Settings(instances=tuple(entries))


def test_flag_takes_texts_or_json():
    flags = ("m@http://h:1", json.dumps([{"base_url": "http://g:1", "weight": 2}]))
    assert [(each.id, each.weight) for each in load_settings({"instances": flags}).instances] == [
        ("m@http://h:1", 1.0),
        ("@http://g:1", 2.0),
    ]


@pytest.mark.parametrize(
    ("load_balance", "message"),
    [
        ({"video": "random"}, "'video' is not one of chat"),
        ({"chat": "fastest"}, "'fastest' is not one of random"),
        ({"embedding": "prefix-affinity"}, "prefix-affinity does not apply to embedding"),
    ],
)
def test_unknown_service_or_strategy_is_an_error(load_balance, message):
    with pytest.raises(SettingsError, match=message):
        Settings(load_balance=load_balance)
