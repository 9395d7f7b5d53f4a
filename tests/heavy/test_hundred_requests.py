"""A hundred outputs for random schemas, a hundred forced tool calls, and a hundred streams with random parameters."""

from tests.support.sampling import check_streams
from tests.support.structured import check_forced_calls, check_schemas


def test_hundred_outputs_match_their_schemas(client):
    check_schemas(client, 100)


def test_hundred_forced_calls_match_their_schemas(client):
    check_forced_calls(client, 100)


def test_hundred_streams_match_non_streamed_responses(client):
    check_streams(client, 100)
