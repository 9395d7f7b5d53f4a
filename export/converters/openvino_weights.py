"""Optimizes the weights of an OpenVINO model for speed: merges matrices, and quantizes them to int8.

A quantized matrix has one scale per row (output channel), which the engine can apply outside its inner loop. GGUF's
Q8_0 has one scale per 32 values, which the engine must apply inside that loop. Merged matrices need fewer
synchronizations between threads. `bench/weights.py` measures the speed, `bench/precision.py` the quality.
"""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from openvino import opset13 as ops

# Operation → index of its matrix input, whose shape is [output channels, input channels] for MatMul and
# [vocabulary, width] for Gather.
_MATRIX_INPUT = {"MatMul": 1, "Gather": 0}
_MIN_SIDE = 64


def optimize_weights(path: Path, *, quantize: bool = True) -> None:
    """Merge and, by default, quantize the matrices of the model at `path` (.xml, with the .bin in the same folder)."""
    model = openvino.Core().read_model(path)
    _merge_parallel(model)
    if quantize:
        _quantize_per_channel(model)
    model.validate_nodes_and_infer_types()
    # The model's file is still memory-mapped: write a second file, then replace it.
    optimized = path.with_name("optimized.xml")
    openvino.save_model(model, optimized, compress_to_fp16=False)
    del model
    optimized.replace(path)
    optimized.with_suffix(".bin").replace(path.with_suffix(".bin"))


def _merge_parallel(model: openvino.Model) -> None:
    """Merge MatMuls that share their input (query, key and value; gate and up), and split the output."""
    groups = defaultdict(list)
    for operation in model.get_ordered_ops():
        if operation.get_type_name() == "MatMul" and operation.get_attributes()["transpose_b"]:
            source = operation.input_value(0)
            if _matrix(operation.input_value(1).get_node()) is not None:
                groups[source.get_node().get_friendly_name(), source.get_index()].append(operation)
    for members in groups.values():
        if len(members) > 1:
            _merge(members)


def _merge(members: list[Any]) -> None:
    matrices = [_values(_matrix(member.input_value(1).get_node())).astype(np.float16) for member in members]
    weights = ops.convert(ops.constant(np.concatenate(matrices)), members[0].get_output_element_type(0))
    merged = ops.matmul(members[0].input_value(0), weights, False, True)
    rows = np.array([len(matrix) for matrix in matrices], dtype=np.int64)
    split = ops.variadic_split(merged, ops.constant(np.int64(-1)), ops.constant(rows))
    for i, member in enumerate(members):
        for target in member.output(0).get_target_inputs():
            target.replace_source_output(split.output(i))


def _quantize_per_channel(model: openvino.Model) -> None:
    """Replace every large constant matrix of a MatMul or Gather with int8 values and one float16 scale per row.

    A value is int8 × scale, and the scale is the row's largest magnitude / 127. An embedding matrix that is shared with
    the output layer stays shared.
    """
    replaced: dict[str, Any] = {}
    for operation in model.get_ordered_ops():
        index = _MATRIX_INPUT.get(operation.get_type_name())
        constant = None if index is None else _matrix(operation.input_value(index).get_node())
        if constant is not None:
            name = constant.get_friendly_name()
            replaced[name] = replaced.get(name) or _quantized(_values(constant))
            operation.input(index).replace_source_output(replaced[name].output(0))


def _matrix(node: Any) -> Any:
    """Return the constant that a node is or converts, if it is a large matrix of floats, else None."""
    constant = node.input_value(0).get_node() if node.get_type_name() == "Convert" else node
    if constant.get_type_name() != "Constant" or not constant.get_element_type().is_real():
        return None
    shape = constant.get_output_shape(0)
    return constant if len(shape) == 2 and min(shape) >= _MIN_SIDE else None


def _values(constant: Any) -> np.ndarray[Any, Any]:
    """Return a constant's values. `constant.data` would misread bfloat16, which NumPy does not have."""
    values: np.ndarray[Any, Any] = constant.get_data(dtype=np.float32)
    return values


def _quantized(values: np.ndarray[Any, Any]) -> Any:
    scale = (np.abs(values).max(axis=1, keepdims=True) / 127).astype(np.float16)
    scale[scale == 0] = 1
    integers = np.rint(values / scale.astype(np.float32)).clip(-127, 127).astype(np.int8)
    product = ops.multiply(ops.convert(ops.constant(integers), "f16"), ops.constant(scale))
    return ops.convert(product, "f32")
