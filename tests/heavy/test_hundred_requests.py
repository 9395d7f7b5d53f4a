"""A hundred random schemas, forced calls of tools with random parameters, and streams with random sampling fields."""

from tests.support.sampling import check_streams
from tests.support.structured import check_forced_calls, check_schemas


def test_a_hundred_schemas(client):
    check_schemas(client, 100)


def test_a_hundred_forced_calls(client):
    check_forced_calls(client, 100)


def test_a_hundred_streams(client):
    check_streams(client, 100)
