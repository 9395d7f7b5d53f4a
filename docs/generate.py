"""Generates tables in the Markdown files from the code that the tables describe.

`python -m docs.generate` rewrites the files whose tables are stale, and lists these files. With `--check`, the command
only lists them, and exits with status 1 if there are any. A generated table stands between the comments
`<!-- generated: KIND ARGUMENT -->` and `<!-- end -->`.
"""

import dataclasses
import importlib
import inspect
import json
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_type_hints

import click

from contract.paths import CHECKOUT
from contract.tensors import TENSORS
from export.catalog import Entry, load_catalog
from frontend import errors
from frontend.aliases import DEFAULT_ALIASES
from frontend.app import create_app
from frontend.endpoints.openapi.document import generate as generate_openapi
from frontend.settings import GROUPS, Settings
from trident.cli import SECTIONS
from trident.cli import main as main_command
from trident.cli.options import SettingOption

_BLOCK = re.compile(r"(<!-- generated: (\w+) ?(\S*) -->\n).*?(<!-- end -->)", re.DOTALL)

Schema = dict[str, Any]


def main() -> None:
    """Rewrite the Markdown files with stale tables or, with `--check`, only list them."""
    stale = [path for path in documents() if path.read_text(encoding="utf-8") != filled_in(path)]
    for path in stale:
        print(path.relative_to(CHECKOUT))
        if "--check" not in sys.argv:
            path.write_text(filled_in(path), encoding="utf-8")
    if stale and "--check" in sys.argv:
        sys.exit("stale: run `make docs`")


def documents() -> list[Path]:
    """Return the Markdown files that may contain generated tables."""
    return sorted([*CHECKOUT.glob("*.md"), *CHECKOUT.glob("docs/**/*.md")])


def filled_in(path: Path) -> str:
    """Return the text of a file in which newly generated tables replace the old tables."""
    return _BLOCK.sub(
        lambda block: f"{block[1]}\n{TABLES[block[2]](block[3])}\n\n{block[4]}", path.read_text(encoding="utf-8")
    )


def _table(header: str, rows: Iterable[Iterable[Any]]) -> str:
    columns = header.split(" | ")
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("\n", " ") for cell in line) + " |" for line in lines)


# Tables of request fields, generated from the classes of the request bodies.


def request_fields(name: str) -> str:
    """Return a table of a request's fields, and a table for each type of object that these fields contain.

    `name` is the class of the request body, as MODULE.CLASS.
    """
    module, _, title = name.rpartition(".")
    model = getattr(importlib.import_module(module), title)
    schema = model.model_json_schema()
    objects = {title: fields for title, fields in schema.get("$defs", {}).items() if "properties" in fields}
    tables = [_fields_table(schema)]
    if rejected := getattr(model, "unsupported", None):
        names = ", ".join(map(_rejected, rejected, rejected.values()))
        tables.append(f"These fields are rejected with a 400, except for the values in parentheses: {names}.")
    for title in _in_order_of_use(schema, objects):
        text = objects[title]["description"].split("\n\n")[0].replace("\n", " ")
        tables.append(f"#### {title}\n\n{text}\n\n{_fields_table(objects[title])}")
    return "\n\n".join(tables)


def _rejected(name: str, supported: tuple[Any, ...]) -> str:
    values = " or ".join(f"`{json.dumps(value)}`" for value in supported)
    return f"`{name}` ({values})" if values else f"`{name}`"


def _in_order_of_use(schema: Schema, objects: dict[str, Schema]) -> list[str]:
    order: list[str] = []
    waiting = [schema]
    while waiting:
        for title in re.findall(r"'#/\$defs/(\w+)'", repr(waiting.pop(0).get("properties"))):
            if title in objects and title not in order:
                order.append(title)
                waiting.append(objects[title])
    return order


def _fields_table(schema: Schema) -> str:
    required = schema.get("required", [])
    fields = sorted(schema["properties"].items(), key=lambda item: item[0] not in required)
    rows = [
        (
            f"`{name}`",
            _type(field),
            "required" if name in required else _default(field.get("default")),
            ", ".join(_limits(field)) or "–",
            field.get("description", ""),
        )
        for name, field in fields
    ]
    return _table("field | type | default | limits | description", rows)


def _type(field: Schema) -> str:
    if options := _options(field):
        return " or ".join(dict.fromkeys(map(_type, options)))
    if "$ref" in field:
        title = field["$ref"].rpartition("/")[2]
        return f"[{title}](#{title.lower()})"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    if field.get("type") == "array":
        return f"list of {_plural(_type(field['items']))}"
    kind: str = field["type"]
    return kind


def _options(field: Schema) -> list[Schema]:
    """Return the alternatives of a union, except null. If the field is not a union, return an empty list."""
    options: list[Schema] = field.get("anyOf") or field.get("oneOf") or []
    return [option for option in options if option.get("type") != "null"]


def _plural(kind: str) -> str:
    return re.sub(r"^(string|integer|number|object|list)\b", r"\1s", kind)


def _default(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value) or "empty"


def _limits(field: Schema) -> Iterator[str]:
    for option in _options(field) or [field]:
        if "minimum" in option and "maximum" in option:
            yield f"{_number(option['minimum'])} to {_number(option['maximum'])}"
        elif "minimum" in option or "maximum" in option:
            yield f"≥ {_number(option['minimum'])}" if "minimum" in option else f"≤ {_number(option['maximum'])}"
        for key, sign in (("exclusiveMinimum", ">"), ("exclusiveMaximum", "<")):
            if key in option:
                yield f"{sign} {_number(option[key])}"
        for key, unit in (("maxLength", "characters"), ("maxItems", "items"), ("maxProperties", "entries")):
            if key in option:
                yield f"≤ {option[key]:,} {unit}"
        if (option.get("minLength") or option.get("minItems")) and len(_options(field)) < 2:
            yield "not empty"


def _number(value: float) -> str:
    powers = {2**63: "2⁶³", -(2**63): "−2⁶³"}
    return powers.get(value) or f"{value:g}".replace("e-0", "e-").replace("-", "−")  # type: ignore[call-overload]


# Tables of settings, models, aliases, errors and tensors.


def settings_tables(_: str) -> str:
    """Return one table for each group of settings."""
    fields, hints = dataclasses.fields(Settings), get_type_hints(Settings)
    tables = []
    for group in GROUPS:
        rows = [
            (
                f"`--{field.name.replace('_', '-')}`",
                f"`TRIDENT_{field.name.upper()}`",
                f"`{field.name}`",
                _setting_default(field),
                _setting_values(field, hints[field.name]),
                field.metadata["help"],
            )
            for field in fields
            if field.metadata["group"] == group
        ]
        table = _table("flag | variable | key in the file | default | values | meaning", rows)
        tables.append(f"### {group.capitalize()}\n\n{table}")
    return "\n\n".join(tables)


def _setting_default(field: "dataclasses.Field[Any]") -> str:
    if field.name in ("model_repository", "cache"):
        return {"model_repository": "`model_repository/`", "cache": "`~/.cache/trident`"}[field.name]
    if field.default in (dataclasses.MISSING, None, ()):
        return "–"
    return f"`{_default(field.default)}`"


def _setting_values(field: "dataclasses.Field[Any]", kind: Any) -> str:
    about = field.metadata
    if kind is bool:
        return "true, false"
    if about["choices"]:
        return ", ".join(about["choices"])
    low, high = about["minimum"], about["maximum"]
    limits = f" {low:g} to {high:g}" if high is not None else f" ≥ {low:g}" if low is not None else ""
    return f"{about['metavar']}{limits}"


def catalog_table(_: str) -> str:
    """Return the table of the catalog's models."""
    entries = load_catalog().values()
    rows = [
        (f"`{e.name}`", e.task.replace("_", " "), _download(e), ", ".join(_engines(e)), e.license, _describe(e))
        for e in entries
    ]
    return _table("model | task | download | engine | license | description", rows)


def _download(entry: Entry) -> str:
    if not (entry.packages or entry.hub or entry.url):
        return "your own"
    size = f"{entry.size / 1e6:,.0f} MB"
    return f"{size} from a hub" if entry.hub else size


_ENGINE_NAMES = {"openvino": "OpenVINO", "llamacpp": "llama.cpp", "ctranslate2": "CTranslate2"}


def _engines(entry: Entry) -> list[str]:
    """Return the engines that can run a model, the best one first."""
    if entry.converter == "gguf":
        names = ["openvino", "llamacpp"]
    elif entry.backend in ("encoder", "segmentation", "ocr"):
        names = ["onnxruntime"]
    elif entry.backend == "diffusion":
        names = ["openvino"]
    else:
        names = entry.engines or [entry.parameters["engine"]]
    return [_ENGINE_NAMES.get(name, name) for name in names]


def _describe(entry: Entry) -> str:
    return f"**starter**; {entry.description}" if entry.starter else entry.description


def alias_table(_: str) -> str:
    """Return the table of the default aliases, by task."""
    tasks = dict.fromkeys(DEFAULT_ALIASES.values())
    rows = [
        (task.replace("_", " "), ", ".join(f"`{name}`" for name, target in DEFAULT_ALIASES.items() if target == task))
        for task in tasks
    ]
    return _table("task | aliases of its default model", rows)


def error_table(_: str) -> str:
    """Return the table of the errors that a client can receive."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.APIError)]
    kinds = [kind for kind in kinds if kind not in (errors.APIError, errors.ClientClosedRequest)]
    rows = [
        (kind.status, f"`{_error_type(kind)}`", f"`{kind.code}`", (kind.__doc__ or "").split("\n")[0])
        for kind in sorted(kinds, key=lambda kind: kind.status)
    ]
    return _table("status | type | code | cause", rows)


def _error_type(kind: type[errors.APIError]) -> str:
    return errors.ERROR_TYPES_BY_CODE.get(kind.code) or errors.ERROR_TYPES[kind.status]


def tensor_table(_: str) -> str:
    """Return the table of each task's tensors."""
    rows = []
    for task, tensors in TENSORS.items():
        inputs = [f"`{name}`{'?' if name in tensors.optional else ''}" for name in tensors.inputs]
        outputs = [f"`{name}`" for name in tensors.outputs]
        responses = "many per request" if tensors.decoupled else "one per row, batched"
        rows.append((task.replace("_", " "), ", ".join(inputs), ", ".join(outputs), responses))
    return _table("task | inputs (`?`: optional) | outputs | responses", rows)


def operation_table(_: str) -> str:
    """Return a table of the operations of the management API."""
    with tempfile.TemporaryDirectory() as folder:
        app = create_app(Settings(cache=Path(folder), data=Path(folder)), lambda _: None, lambda: None)  # type: ignore[arg-type,return-value]
        document = generate_openapi(app)
    rows = [
        (f"`{method.upper()} {path}`", operation["summary"].rstrip("."))
        for path, methods in document["paths"].items()
        if path.startswith(("/api/", "/v1/organization/"))
        for method, operation in methods.items()
    ]
    return _table("request | what it does", rows)


# The reference of the command line.


def command_reference(_: str) -> str:
    """Return a section for each command of `trident`, from its help."""
    sections = []
    for title, commands in SECTIONS.items():
        sections.append(f"## {title}")
        for command in commands:
            sections += _command_sections(command, click.Context(main_command, info_name="trident"))
    return "\n\n".join(sections)


def _command_sections(command: click.Command, parent: click.Context) -> Iterator[str]:
    context = click.Context(command, info_name=command.name, parent=parent)
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    parts = [f"### {context.command_path}", _help_text(command.help or ""), f"```text\n{usage}\n```"]
    if rows := list(_option_rows(command, context)):
        parts.append(_table("option | meaning", rows))
    if any(_is_setting(each) for each in command.params):
        names = [f"`{option.opts[0]}`" for option in command.params if _is_setting(option)]
        all_of_them = len(names) == len(dataclasses.fields(Settings))
        link = "[settings](configuration.md#settings)"
        parts.append(
            f"All {link} are options, too." if all_of_them else f"These {link} are options: {', '.join(names)}."
        )
    yield "\n\n".join(parts)
    if isinstance(command, click.Group):
        for child in command.commands.values():
            yield from _command_sections(child, context)


def _help_text(text: str) -> str:
    """Return a help text as Markdown: a paragraph that click must not wrap becomes a block of code."""
    parts = []
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        if not paragraph.startswith("\b"):
            parts.append(" ".join(paragraph.split()))
            continue
        title, *lines = paragraph.removeprefix("\b").strip("\n").splitlines()
        parts.append(f"{title}\n\n```bash\n" + "\n".join(line.strip() for line in lines) + "\n```")
    return "\n\n".join(parts)


def _option_rows(command: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
    for option in command.get_params(context):
        if isinstance(option, click.Option) and not (option.hidden or _is_setting(option) or "--help" in option.opts):
            names, meaning = option.get_help_record(context) or ("", "")
            yield f"`{names}`".replace("|", "\\|"), meaning.replace("|", "\\|")


def _is_setting(option: click.Parameter) -> bool:
    return isinstance(option, SettingOption)


TABLES = {
    "commands": command_reference,
    "operations": operation_table,
    "aliases": alias_table,
    "catalog": catalog_table,
    "errors": error_table,
    "fields": request_fields,
    "settings": settings_tables,
    "tensors": tensor_table,
}

if __name__ == "__main__":
    main()
