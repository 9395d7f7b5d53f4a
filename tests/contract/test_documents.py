"""The documents match the code: endpoints, models, generated tables, links and paths. Also checks the lock files."""

import re
import subprocess

import pytest

from contract.paths import CHECKOUT
from docs import generate, wording
from export.catalog import load_catalog, starter_names
from frontend.app import create_app
from frontend.settings import Settings

DOCUMENTS = sorted(
    path.relative_to(CHECKOUT).as_posix()
    for path in [*CHECKOUT.glob("*.md"), *CHECKOUT.glob("[!.]*/**/*.md")]
    if "node_modules" not in path.parts
)
TRANSLATIONS = [("README.md", "README.zh-CN.md"), ("docs/quickstart.md", "docs/quickstart.zh-CN.md")]


def read(name):
    return (CHECKOUT / name).read_text(encoding="utf-8")


def routes(tmp_path):
    app = create_app(Settings(cache=tmp_path, data=tmp_path), lambda _: object(), lambda: None)
    return {
        (method, re.sub(r"<(?:string\(minlength=8\):|int:|path:)?(\w+)>", r"{\1}", rule.rule))
        for rule in app.url_map.iter_rules()
        if not rule.endpoint.startswith("management_unsupported.")
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }


def test_api_reference_names_every_endpoint_and_no_others(tmp_path):
    text = read("docs/api/README.md") + read("docs/api/management.md")
    documented = set(re.findall(r"^\| `(GET|POST|DELETE|PUT|PATCH) (/[^`]*)`", text, re.MULTILINE))
    documented = {(method, path.replace("/v1/models/{id}", "/v1/models/{name}")) for method, path in documented}
    served = routes(tmp_path)
    assert documented <= served
    assert {path.removeprefix("/v1") for _, path in served} == {path.removeprefix("/v1") for _, path in documented}


@pytest.mark.parametrize("document", ["README.md", "README.zh-CN.md"])
def test_readme_names_every_starter_model(document):
    assert all(f"`{name}`" in read(document) for name in starter_names())


def test_the_document_of_models_names_every_model():
    assert all(f"`{name}`" in read("docs/models.md") for name in load_catalog())


@pytest.mark.parametrize("document", ["README.md", "README.zh-CN.md"])
def test_readme_has_at_most_120_lines(document):
    assert len(read(document).splitlines()) <= 120


@pytest.mark.parametrize(("english", "chinese"), TRANSLATIONS)
def test_translation_has_the_same_code_blocks_as_the_english_document(english, chinese):
    blocks = [re.findall(r"```(?:bash|python|json|text)\n.*?```", read(name), re.DOTALL) for name in (english, chinese)]
    assert blocks[0] == blocks[1]


@pytest.mark.parametrize("path", generate.documents(), ids=lambda path: path.relative_to(CHECKOUT).as_posix())
def test_generated_tables_are_current(path):
    assert path.read_text(encoding="utf-8") == generate.filled_in(path), "stale: run `make docs`"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_link_targets_and_paths_in_documents_exist(document):
    text = re.sub(r"```.*?```", "", read(document), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = (CHECKOUT / document).parent / name if name else CHECKOUT / document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), link
    for path in re.findall(
        r"`((?:contract|trident|frontend|backends|export|bench|tests|requirements|docs|examples)/[\w./-]*)`", text
    ):
        assert "NAME" in path or (CHECKOUT / path).exists(), path


def anchors(text):
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_architecture_documents_name_every_package():
    text = read("ARCHITECTURE.md") + "".join(read(name) for name in DOCUMENTS if name.startswith("docs/architecture/"))
    for folder in ("contract", "trident", "frontend", "backends", "export"):
        for path in (CHECKOUT / folder).rglob("__init__.py"):
            assert re.search(rf"\b{path.parent.name}/|\b{path.parent.name}`", text), path.parent


@pytest.mark.parametrize("phrase", ["All but for one", "those that wait", "most_tokens", "whoever"])  # wording: allow
def test_wording_check_finds_the_phrase_except_on_allowed_lines(tmp_path, monkeypatch, phrase):
    (tmp_path / "page.md").write_text(f"Plain words.\n{phrase}\n{phrase} (wording: allow)\n", encoding="utf-8")
    monkeypatch.setattr(wording, "CHECKOUT", tmp_path)
    assert [finding.partition(": ")[0] for finding in wording.findings("page.md")] == ["page.md:2"]


def test_make_help_lists_every_target():
    listed = subprocess.run(["make", "help"], cwd=CHECKOUT, capture_output=True, encoding="utf-8", check=True).stdout
    phony = re.search(r"^\.PHONY: (.*)$", (CHECKOUT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)[1].split()
    assert all(f"make {target} " in listed for target in phony)


def test_every_requirement_is_pinned_to_a_version_and_hash():
    for lock in (CHECKOUT / "requirements").glob("*.lock"):
        pinned = [
            line for line in lock.read_text(encoding="utf-8").splitlines() if line and not line.startswith((" ", "#"))
        ]
        assert pinned
        assert all("==" in line and line.endswith("\\") for line in pinned), lock


def test_serving_environment_does_not_include_torch():
    assert not re.search(
        r"^torch==", (CHECKOUT / "requirements" / "serve.lock").read_text(encoding="utf-8"), re.MULTILINE
    )
