"""/api/usage and OpenAI's /v1/organization/usage: what keys and models have used."""

import csv
import io
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, Response, request

from frontend.errors import InvalidRequest
from frontend.gateway.usage import KEYS, MAX_ROWS, read_usage, today
from frontend.http.envelope import envelope
from frontend.http.respond import json_response
from frontend.services import services

blueprint = Blueprint("management_usage", __name__)

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_GROUPS = {"day": "day", "key": "key_id", "model": "model", "service": "service"}
# Column → field of the response.
_NAMES = {
    "day": "day",
    "key_id": "keyId",
    "model": "model",
    "service": "service",
    "requests": "requests",
    "errors": "errors",
    "input_tokens": "inputTokens",
    "output_tokens": "outputTokens",
    "audio_seconds": "audioSeconds",
    "images": "images",
}
_DAY_SECONDS = 86_400
_DEFAULT_BUCKETS, _MAX_BUCKETS = 7, 31


@blueprint.get("/api/usage")
def get_usage() -> Response:
    """Return the usage by UTC day, key, model and service.

    `from` and `to` are days (today if omitted); `keyId` and `model` select rows; `groupBy` is a list of `day`, `key`,
    `model` and `service` to sum by; `format=csv` returns CSV.
    """
    first, last = _day("from"), _day("to")
    if first > last:
        raise InvalidRequest("'from' is later than 'to'", param="from")
    group = _group_columns(request.args.get("groupBy") or "day,key,model,service")
    found = read_usage(
        services().gateway.store, first, last, request.args.get("keyId"), request.args.get("model"), group
    )
    rows = [{_NAMES[name]: value for name, value in row.items()} for row in found]
    columns = [field for name, field in _NAMES.items() if name in group or name not in KEYS]
    kind = request.args.get("format", "json")
    if kind not in ("json", "csv"):
        raise InvalidRequest("'format' must be 'json' or 'csv'", param="format")
    if kind == "csv":
        return Response(_as_csv(rows, columns), content_type="text/csv; charset=utf-8")
    return envelope({"from": first, "to": last, "rows": rows, "truncated": len(rows) == MAX_ROWS})


@blueprint.get("/v1/organization/usage/completions")
def get_openai_usage() -> Response:
    """Return the usage of text models in OpenAI's format, in buckets of one UTC day."""
    if "start_time" not in request.args:
        raise InvalidRequest(
            "Invalid request: missing required parameter 'start_time'", param="start_time", code="missing_parameter"
        )
    start = _seconds("page", _seconds("start_time", 0))
    end = _seconds("end_time", int(datetime.now(UTC).timestamp()) + 1)
    if request.args.get("bucket_width", "1d") != "1d":
        raise InvalidRequest("'bucket_width' must be '1d'", param="bucket_width")
    limit = _seconds("limit", _DEFAULT_BUCKETS)
    if not 1 <= limit <= _MAX_BUCKETS:
        raise InvalidRequest(f"'limit' must be an integer from 1 to {_MAX_BUCKETS}", param="limit")
    groups = request.args.getlist("group_by") or request.args.getlist("group_by[]")
    if unknown := sorted(set(groups) - {"model", "api_key_id"}):
        raise InvalidRequest(f"'group_by' does not support '{unknown[0][:50]}'", param="group_by")
    first = start - start % _DAY_SECONDS
    starts = list(range(first, min(end, first + limit * _DAY_SECONDS), _DAY_SECONDS))
    following = first + limit * _DAY_SECONDS
    rows = _text_usage(_date(starts[0]), _date(starts[-1])) if starts else []
    buckets = [
        {
            "object": "bucket",
            "start_time": begin,
            "end_time": begin + _DAY_SECONDS,
            "results": _openai_results([row for row in rows if row["day"] == _date(begin)], groups),
        }
        for begin in starts
    ]
    more = following < end
    page = {"object": "page", "data": buckets, "has_more": more, "next_page": str(following) if more else None}
    return json_response(page)


def _text_usage(first: str, last: str) -> list[dict[str, Any]]:
    return read_usage(services().gateway.store, first, last, service="chat")


def _openai_results(rows: list[dict[str, Any]], groups: Sequence[str]) -> list[dict[str, Any]]:
    sums: dict[tuple[str | None, str | None], list[int]] = {}
    for row in rows:
        group = (row["model"] if "model" in groups else None, row["key_id"] if "api_key_id" in groups else None)
        total = sums.setdefault(group, [0, 0, 0])
        for index, name in enumerate(("input_tokens", "output_tokens", "requests")):
            total[index] += row[name]
    return [
        {
            "object": "organization.usage.completions.result",
            "input_tokens": total[0],
            "output_tokens": total[1],
            "num_model_requests": total[2],
            "input_cached_tokens": 0,
            "input_audio_tokens": 0,
            "output_audio_tokens": 0,
            "project_id": None,
            "user_id": None,
            "api_key_id": key,
            "model": model,
            "batch": None,
        }
        for (model, key), total in sums.items()
    ]


def _day(name: str) -> str:
    text = request.args.get(name) or today()
    if not _DAY.fullmatch(text) or not _is_date(text):
        raise InvalidRequest(f"'{name}' must be a day such as 2026-01-31", param=name)
    return text


def _is_date(text: str) -> bool:
    try:
        datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        return False
    return True


def _seconds(name: str, default: int) -> int:
    text = request.args.get(name)
    if text is None:
        return default
    if not text.isdecimal() or len(text) > 10:
        raise InvalidRequest(f"'{name}' must be a Unix time in seconds", param=name)
    return int(text)


def _date(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


def _group_columns(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in _GROUPS:
            raise InvalidRequest(f"'groupBy' must be a list of {', '.join(_GROUPS)}", param="groupBy")
    return [column for name, column in _GROUPS.items() if name in names]


def _as_csv(rows: list[dict[str, Any]], columns: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _safe(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def _safe(value: Any) -> Any:
    """Return a value of a cell. Spreadsheets would run text that begins like a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value
