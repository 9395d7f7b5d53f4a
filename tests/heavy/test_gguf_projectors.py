"""Projectors whose embeddings have rows and columns, or attend to each other, against llama.cpp's own helper."""

import subprocess
import sys

import numpy as np
import pytest
from openai import OpenAI

from backends.common.llamacpp.context import LlamaContext, Piece
from backends.common.llamacpp.media.assembly import Assembly
from backends.common.llamacpp.media.encoder import MediaEncoder
from backends.common.llamacpp.media.messages import Image
from backends.generation.vocabulary import open_vocabulary
from contract.paths import default_cache
from export.converters.llamacpp import link_gguf
from export.llamacpp import fetch_multimodal_library
from tests.live.test_gguf_media import image, repeated_word, text_of
from tests.support import mtmd_reference as reference
from tests.support.gguf_files import gguf_file
from tests.support.projectors import (
    COLORS,
    write_bidirectional_projector,
    write_color_projector,
    write_grid_model,
    write_grid_projector,
)
from tests.support.stack import running_stack

SMOLLM2 = "smollm2-135m"


@pytest.fixture(scope="module")
def grid_model(tmp_path_factory):
    return write_grid_model(tmp_path_factory.mktemp("grid") / "qwen2vl.gguf")


@pytest.fixture(params=["sequence", "bidirectional", "grid"])
def files(request, tmp_path):
    projector = tmp_path / "mmproj.gguf"
    if request.param == "grid":
        return request.getfixturevalue("grid_model"), write_grid_projector(projector)
    write = write_color_projector if request.param == "sequence" else write_bidirectional_projector
    return gguf_file(SMOLLM2), write(projector)


def logits_after(version):
    """Return the logits after the reference's prompt, with our own libraries and positions."""
    vocabulary, encoder, assembly = open_vocabulary(version), MediaEncoder(version, 1_024), Assembly()
    width, height = reference.SIZE
    picture = Image(width, height, bytes(reference.COLOR) * (width * height))
    try:
        assembly.add_tokens(vocabulary.encode(reference.BEFORE))
        assembly.add_file(encoder.encode(picture, "image"))
        assembly.add_tokens(vocabulary.encode(reference.AFTER))
    finally:
        encoder.close()
    context, start, position = LlamaContext(version, cells=512, max_batch=128, max_running=2, threads=2), 0, 0
    for each in assembly.embeddings:
        if each.start > start:
            context.decode([Piece(0, position, assembly.ids[start : each.start], 0)])
        context.decode_embeddings(0, each.values, each.positions, is_causal=each.is_causal)
        start, position = each.start + len(each.values), each.next_position
    return context.decode([Piece(0, position, assembly.ids[start:], 1)])[0].copy()


def test_logits_are_those_of_the_reference(files, tmp_path):
    model, projector = files
    version, output = tmp_path / "model" / "1", tmp_path / "logits.npy"
    version.mkdir(parents=True)
    link_gguf(model, version, {"mmproj": str(projector)})
    library = fetch_multimodal_library(default_cache()) / "xllamacpp.abi3.so"
    command = [sys.executable, "-m", "tests.support.mtmd_reference", str(library), str(model), str(projector)]
    subprocess.run([*command, str(output)], check=True, capture_output=True)
    expected, found = np.load(output), logits_after(version)
    # The kernels of the two libraries round differently. With the positions of a sequence in place of rows and
    # columns, or with causal attention, the correlation would be 0.993 and 0.998.
    assert np.corrcoef(expected, found)[0, 1] > 0.9992
    assert found.argmax() == expected.argmax()


def test_the_model_sees_colors_whatever_the_shape_of_the_picture(files, tmp_path):
    model, projector = files
    flags = ["--mmproj", str(projector), "--model-repository", str(tmp_path / "repository")]
    with running_stack([str(model)], *flags, engine="llamacpp") as settings:
        client = OpenAI(base_url=f"http://127.0.0.1:{settings.port}/v1", api_key="unused", max_retries=0, timeout=120)
        name = client.models.list().data[0].id
        # Projectors for pictures of one size add borders of another color to others.
        sizes = [(100, 80), (60, 200), (300, 50), (64, 64)] if "qwen2vl" in model.name else [(64, 64)] * 4
        for color, size in zip(COLORS, sizes, strict=True):
            assert repeated_word(client, image(color, size), model=name) == color
        question = ("Repeat this word: ", image("blue"), ".")
        text_of(client, *question, model=name)
        # The same picture again, from the KV cache, and a further turn after it.
        messages = [
            {"role": "user", "content": [{"type": "text", "text": question[0]}, question[1]]},
            {"role": "assistant", "content": "blue"},
            {"role": "user", "content": "Which word did you repeat?"},
        ]
        for _ in range(2):
            completion = client.chat.completions.create(model=name, messages=messages, temperature=0, max_tokens=12)
            assert "blue" in completion.choices[0].message.content.lower()
        usage = completion.usage
        assert usage.prompt_tokens_details.cached_tokens == usage.prompt_tokens - 1
