"""A repository that was written for Triton's onnxruntime backend on GPUs, served without one."""

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import requests
from PIL import Image

from tests.support.images import composite, encode_image
from tests.support.live import export, url
from tests.support.stack import running_stack

MODELS = ("bge-small-en-v1.5", "ms-marco-minilm-l-12-v2", "u2netp")
TEXTS = ["hello", "A longer text about cats, dogs and the weather in Lisbon.", "word " * 400]


@pytest.fixture(scope="module")
def gpu(tmp_path_factory):
    repository = tmp_path_factory.mktemp("gpu")
    export(*MODELS[:2], "--target", "onnxruntime-gpu", "--output", str(repository))
    # This one's network is in float16.
    export(MODELS[2], "--target", "onnxruntime-gpu", "--accelerator", "tensorrt", "--output", str(repository))
    with running_stack(MODELS, "--model-repository", str(repository)) as settings:
        yield settings


def ask(stack, path, body):
    return requests.post(url(stack, path), json=body, timeout=60).json()


def test_only_the_models_are_listed(gpu):
    listed = requests.get(url(gpu, "/v1/models"), timeout=10).json()["data"]
    assert [model["id"] for model in listed] == [
        "BAAI/bge-small-en-v1.5",
        "cross-encoder/ms-marco-MiniLM-L-12-v2",
        "xuebinqin/U-2-Net-p",
    ]


def test_embeddings_are_those_of_the_cpu(stack, gpu):
    body = {"model": MODELS[0], "input": TEXTS * 20}  # more than one batch of the engine
    first, second = (
        np.array(
            [
                row["embedding"]
                for row in requests.post(url(each, "/v1/embeddings"), json=body, timeout=60).json()["data"]
            ]
        )
        for each in (stack, gpu)
    )
    assert np.abs(first - second).max() < 1e-5


def test_scores_are_those_of_the_cpu(stack, gpu):
    body = {"model": MODELS[1], "query": "Where do cats sleep?", "documents": TEXTS}
    scores = [
        [
            row["relevance_score"]
            for row in requests.post(url(each, "/v1/rerank"), json=body, timeout=60).json()["results"]
        ]
        for each in (stack, gpu)
    ]
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)


def test_masks_are_those_of_the_cpu(stack, gpu):
    picture = encode_image(composite("ball")[0])
    masks = []
    for each in (stack, gpu):
        response = requests.post(
            url(each, "/v1/images/remove_background"), files={"image": picture}, data={"model": "u2netp"}, timeout=60
        )
        assert response.status_code == 200, response.text
        masks.append(response.content)
    first, second = (np.asarray(Image.open(io.BytesIO(mask)).getchannel("A"), np.int16) for mask in masks)
    assert np.abs(first - second).mean() < 0.2
    assert np.abs(first - second).max() < 20  # of 255, at edges


def test_bad_input_fails_alone(gpu):
    bodies = [{"input": "word " * (600 if number % 4 == 0 else 10)} for number in range(16)]
    with ThreadPoolExecutor(16) as pool:
        responses = list(pool.map(lambda body: ask(gpu, "/v1/embeddings", body), bodies))
    assert ["error" in response for response in responses] == [number % 4 == 0 for number in range(16)]
    assert responses[0]["error"]["code"] == "context_length_exceeded"
