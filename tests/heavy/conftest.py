"""What the suites with containers share: an engine, the images, and a volume with converted models."""

import os
import shutil

import pytest

from contract.paths import default_cache, default_model_repository
from tests.support.docker_engine import TRITON_BASE, make_triton_base, missing_reason, running_docker
from tests.support.live import MODEL

USER = 10001
CONTAINER_MODELS = (MODEL, "bge-small-en-v1.5", "hibari")


@pytest.fixture(scope="session")
def docker():
    if reason := missing_reason():
        pytest.skip(reason)
    with running_docker() as engine:
        yield engine


@pytest.fixture(scope="session")
def all_in_one(docker):
    return docker.build("all-in-one", "trident")


@pytest.fixture(scope="session")
def frontend_image(docker):
    return docker.build("frontend", "trident-frontend")


@pytest.fixture(scope="session")
def triton_image(docker):
    make_triton_base(docker)
    return docker.build("triton", "trident-triton", TRITON_BASE)


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """A volume with converted models, which the user of the images may write."""
    folder = tmp_path_factory.mktemp("models")
    for name in CONTAINER_MODELS:
        shutil.copytree(default_model_repository() / name, folder / "repository" / name, copy_function=os.link)
        shutil.copytree(default_cache() / "converted" / name, folder / "cache/converted" / name, copy_function=os.link)
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir():
            os.chown(path, USER, USER)
    for parent in folder.parents:
        if parent.name.startswith("pytest-"):
            parent.chmod(0o755)
    return folder
