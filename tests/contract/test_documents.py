"""The documents match the code: endpoints, models, settings, paths and commands."""

import dataclasses
import re
import subprocess
from pathlib import Path

import pytest

from export.catalog import load_catalog
from frontend.app import create_app
from frontend.settings import Settings

CHECKOUT = Path(__file__).resolve().parents[2]
README = (CHECKOUT / "README.md").read_text(encoding="utf-8")
ARCHITECTURE = (CHECKOUT / "ARCHITECTURE.md").read_text(encoding="utf-8")


def routes(tmp_path):
    app = create_app(Settings(cache=tmp_path), object(), lambda: None)
    return {
        (method, re.sub(r"<(\w+)>", r"{\1}", re.sub(r"<path:\w+>", "{id}", rule.rule)))
        for rule in app.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }


def test_readme_lists_exactly_the_served_endpoints(tmp_path):
    documented = set(re.findall(r"^\| `(GET|POST|DELETE|PUT) (/[^`]*)`", README, re.MULTILINE))
    served = routes(tmp_path)
    assert documented <= served
    assert {path.removeprefix("/v1") for _, path in served} == {path.removeprefix("/v1") for _, path in documented}


def test_readme_names_every_model():
    for entry in load_catalog().values():
        assert f"`{entry.name}`" in README
        assert entry.license in README


def test_readme_names_every_setting():
    for name in (field.name for field in dataclasses.fields(Settings)):
        assert f"--{name.replace('_', '-')}" in README, name


@pytest.mark.parametrize("document", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "model_repository/README.md"])
def test_links_and_paths_exist(document):
    text = (CHECKOUT / document).read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert link.startswith("https://") or ((CHECKOUT / document).parent / link).exists(), link
    for path in re.findall(
        r"`((?:contract|trident|frontend|backends|export|bench|tests|requirements)/[\w./-]*)`", text
    ):
        assert (CHECKOUT / path).exists(), path


def test_architecture_names_every_module():
    for folder in ("contract", "trident", "frontend", "backends"):
        for path in (CHECKOUT / folder).rglob("*.py"):
            if path.name not in ("__init__.py", "__main__.py"):
                assert path.name in ARCHITECTURE, path


def test_make_help_lists_every_target():
    listed = subprocess.run(["make", "help"], cwd=CHECKOUT, capture_output=True, encoding="utf-8", check=True).stdout
    phony = re.search(r"^\.PHONY: (.*)$", (CHECKOUT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)[1].split()
    assert all(f"make {target} " in listed for target in phony)


def test_every_requirement_is_pinned_by_hash():
    for lock in (CHECKOUT / "requirements").glob("*.lock"):
        pinned = [
            line for line in lock.read_text(encoding="utf-8").splitlines() if line and not line.startswith((" ", "#"))
        ]
        assert pinned
        assert all("==" in line and line.endswith("\\") for line in pinned), lock


def test_no_torch_in_the_serving_environment():
    assert not re.search(
        r"^torch==", (CHECKOUT / "requirements" / "serve.lock").read_text(encoding="utf-8"), re.MULTILINE
    )
