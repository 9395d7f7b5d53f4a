"""A hundred random schemas, and a hundred forced calls of tools with random parameters."""

from tests.support.structured import check_forced_calls, check_schemas


def test_a_hundred_schemas(client):
    check_schemas(client, 100)


def test_a_hundred_forced_calls(client):
    check_forced_calls(client, 100)
