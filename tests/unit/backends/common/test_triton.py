"""The backends' interface to Triton: configuration, inputs, outputs and errors."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from backends.common.errors import InvalidRequest
from backends.common.triton import error_response, has_input, load_model_config, read_strings, response
from contract.parameters import OCRParameters
from contract.tensors import CHAT, EMBEDDING, SPEECH
from tests.unit.backends.conftest import Tensor

OCR = {"device": "CPU", "threads": "0", "parallel": "2", "batch_size": "6", "max_side": "2000", "min_score": "0.5"}
OCR |= {"max_pixels": "100", "queue_size": "32"}


def test_outputs_have_the_types_in_the_contract():
    values = response(CHAT, text_output="né", num_input_tokens=3).values()
    assert values == {"text_output": "né".encode(), "num_input_tokens": 3}
    assert values["num_input_tokens"].dtype == np.int32
    assert response(SPEECH, audio=b"ab").values()["audio"].tolist() == [97, 98]
    rows = response(EMBEDDING, embedding=np.ones((2, 3)), num_input_tokens=np.array([[1], [2]])).values()
    assert (rows["embedding"].dtype, rows["embedding"].shape) == (np.float32, (2, 3))


def test_unknown_output_raises_key_error():
    with pytest.raises(KeyError):
        response(CHAT, text="Hello")


def test_error_response_has_all_fields_and_hides_internal_errors():
    description = json.loads(error_response(InvalidRequest("wrong", "input", "too_long", 2)).values()["error"])
    assert description == {
        "message": "wrong",
        "status": "INVALID_ARGUMENT",
        "param": "input",
        "code": "too_long",
        "row": 2,
    }
    assert (
        json.loads(error_response(KeyError("secret")).values()["error"])["message"]
        == "The model failed on this request"
    )


def test_inputs_are_read_by_name_and_missing_ones_raise_value_error():
    request = SimpleNamespace(inputs={"image": Tensor("image", np.array([b"x", b"y"], np.object_))})
    assert read_strings(request, "image") == [b"x", b"y"]
    assert not has_input(request, "mask")
    with pytest.raises(ValueError, match="'mask' is missing"):
        read_strings(request, "mask")


def test_model_config_is_loaded():
    config = {"parameters": {name: {"string_value": value} for name, value in OCR.items()}}
    args = {
        "model_name": "ocr",
        "model_repository": "/models/ocr",
        "model_version": "1",
        "model_config": json.dumps(config),
    }
    folder, parameters = load_model_config(args, OCRParameters)
    assert str(folder) == "/models/ocr/1"
    assert (parameters.min_score, parameters.queue_size) == (0.5, 32)
