"""Fixtures that run Trident with the starter models, and the pytest plugin for heavy suites.

The plugin records the suites that passed, and skips suites whose inputs have not changed since.
"""

import atexit
import os
import shutil
import tempfile
from collections import defaultdict

import pytest
from openai import OpenAI

from tests.support.live import MODELS, url
from tests.support.recordings import MOONSHINE, package_files
from tests.support.stack import running_stack
from tests.support.suites import FOLDER, fingerprint, load_suites, record_passed, unchanged_suites

# Not the user's own API keys and configuration.
os.environ["TRIDENT_DATA"] = tempfile.mkdtemp(prefix="trident-data-")
atexit.register(shutil.rmtree, os.environ["TRIDENT_DATA"], ignore_errors=True)


@pytest.fixture(scope="session")
def stack():
    with running_stack(MODELS) as settings:
        yield settings


@pytest.fixture(scope="session")
def compatible_stack(stack):
    """A second frontend that uses the Triton of `stack`, with the flags that clients of AHA and JAiRouter need.

    AHA is a model server, JAiRouter a model gateway: see docs/compatibility.md.
    """
    flags = ["--unknown-model", "default", "--transcribe-audio", "--allow-files", str(package_files(MOONSHINE))]
    with running_stack(MODELS, *flags, "--allow-hosts", "127.0.0.1", triton_of=stack) as settings:
        yield settings


@pytest.fixture(scope="session")
def client(stack):
    return OpenAI(base_url=url(stack, "/v1"), api_key="unused", max_retries=0, timeout=60)


def pytest_addoption(parser):
    parser.addoption(
        "--skip-unchanged", action="store_true", help="skip heavy suites that passed with their current inputs"
    )


def pytest_configure(config):
    config.pluginmanager.register(HeavySuites(config.getoption("--skip-unchanged")), "heavy-suites")


class HeavySuites:
    """Pytest plugin that records the heavy suites whose tests all pass, and skips unchanged suites if requested."""

    def __init__(self, skip_unchanged):
        # The fingerprints are computed before the tests run, so that an edit during the run is not recorded as tested.
        self._fingerprints = {name: fingerprint(inputs) for name, inputs in load_suites().items()}
        self._unchanged = unchanged_suites(self._fingerprints) if skip_unchanged else []
        self._skipped = set()
        self._expected = defaultdict(set)
        self._passed = defaultdict(set)

    def pytest_collection_modifyitems(self, config, items):
        for item in items:
            if item.path.parent == FOLDER:
                self._expected[item.path.stem].add(item.nodeid)
        self._skipped = self._expected.keys() & set(self._unchanged)
        deselected = [item for item in items if item.path.stem in self._skipped]
        if deselected:
            items[:] = [item for item in items if item not in deselected]
            config.hook.pytest_deselected(items=deselected)

    def pytest_runtest_logreport(self, report):
        if report.when == "call" and report.passed:
            suite = report.nodeid.partition("::")[0].rpartition("/")[2].removesuffix(".py")
            self._passed[suite].add(report.nodeid)

    def pytest_sessionfinish(self, session):
        # If tests are filtered, `_expected` may lack tests of a suite, so a filtered run is not recorded.
        filters = [session.config.getoption(name) for name in ("keyword", "markexpr", "deselect", "lf", "maxfail")]
        filtered = any(filters) or any("::" in argument for argument in session.config.args)
        complete = [name for name, tests in self._expected.items() if tests == self._passed[name]]
        if complete and not filtered:
            record_passed({name: self._fingerprints[name] for name in complete if name in self._fingerprints})

    def pytest_terminal_summary(self, terminalreporter):
        if self._skipped:
            names = ", ".join(sorted(self._skipped))
            terminalreporter.write_line(
                f"Skipped heavy suites whose inputs have not changed: {names} (make test-all runs them)"
            )
