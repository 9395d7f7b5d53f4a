"""Makes an int8 ONNX encoder compute each row independently of the other rows of its batch.

A published int8 file quantizes the activations of a whole batch with one scale, so that a text's vector depends on the
texts beside it. Here, each activation gets a fixed scale, measured on CALIBRATION with the file's weights in float32.
The input of the second feed-forward matrix, the output of GELU, has such large outliers that a fixed scale would be too
coarse; it gets a scale for each row of tokens instead.

`DynamicQuantizeLinear → MatMulInteger → Cast → Mul → Add` becomes `QuantizeLinear → MatMulIntegerToFloat`, an operator
of onnxruntime that is as fast. Activations stay unsigned, because signed ones would be ten times slower.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from tokenizers import Tokenizer

Array = NDArray[Any]

CALIBRATION = Path(__file__).with_name("calibration.txt")
"""Varied texts, one per line."""

_MAX_TOKENS = 256

# The least value of GELU is about -0.17. If an activation is never less, its largest magnitude is its maximum, or this.
_GELU_MINIMUM = 0.17

# From this version of ONNX's operators on, ReduceMax takes its axes as an input.
_AXES_ARE_AN_INPUT = 18

# A matrix whose input is at least this many times as wide as its output is the second of a feed-forward layer.
_WIDER = 2


class _Product(NamedTuple):
    """A product of a quantized activation and constant weights in the published file."""

    activation: str
    weights: Array
    """int8 [in, out], with the zero points subtracted."""
    scales: Array
    """float32 [out] or a scalar."""
    output: str
    bias: str | None
    nodes: tuple[onnx.NodeProto, ...]
    """The nodes that are replaced, the last of which yields `output`."""


def has_dynamic_scales(path: Path) -> bool:
    """Return whether the model quantizes activations with one scale per batch."""
    return any(node.op_type == "DynamicQuantizeLinear" for node in onnx.load(path).graph.node)


def fix_scales(source: Path, target: Path, tokenizer: Path) -> None:
    """Write the model at `source` to `target` with activations whose scales do not depend on the batch.

    A model whose output is one row per text, such as a classifier, is calibrated with pairs of texts.
    """
    model = onnx.load(source)
    in_pairs = len(model.graph.output[0].type.tensor_type.shape.dim) == 2
    products = list(_products(model.graph))
    ranges = _ranges(_in_float32(source, products), [product.activation for product in products], tokenizer, in_pairs)
    _replace(model.graph, products, _Quantizers(model, ranges))
    if not any(opset.domain == "com.microsoft" for opset in model.opset_import):
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    model.ir_version = max(model.ir_version, 7)
    onnx.save(model, target)


def _products(graph: onnx.GraphProto) -> Iterator[_Product]:
    constants = {tensor.name: tensor for tensor in graph.initializer}
    makers = {output: node for node in graph.node for output in node.output}
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    for product in graph.node:
        quantizer = makers.get(product.input[0]) if product.op_type == "MatMulInteger" else None
        if quantizer is None or quantizer.op_type != "DynamicQuantizeLinear" or product.input[1] not in constants:
            continue
        (cast,) = users[product.output[0]]
        (scaled,) = users[cast.output[0]]
        scale = makers[next(name for name in scaled.input if name != cast.output[0])]
        weight_scale = next(name for name in scale.input if name != quantizer.output[1])
        weights = numpy_helper.to_array(constants[product.input[1]]).astype(np.int16)
        if len(product.input) > 3:
            weights = weights - numpy_helper.to_array(constants[product.input[3]]).astype(np.int16)
        nodes: tuple[onnx.NodeProto, ...] = (product, cast, scaled)
        output, bias = scaled.output[0], None
        (following, *others) = users[output]
        vectors = [name for name in following.input if name in constants and len(constants[name].dims) == 1]
        if not others and following.op_type == "Add" and vectors:
            nodes, output, bias = (*nodes, following), following.output[0], vectors[0]
        yield _Product(
            quantizer.input[0],
            _signed(weights),
            numpy_helper.to_array(constants[weight_scale]),
            output,
            bias,
            nodes,
        )


def _signed(weights: Array) -> Array:
    if weights.min() < -128 or weights.max() > 127:
        raise ValueError("the weights of the model do not fit into 8 bits with a zero point of 0")
    return weights.astype(np.int8)


def _in_float32(source: Path, products: Sequence[_Product]) -> onnx.ModelProto:
    """Return the model with float32 products of the same weights."""
    model = onnx.load(source)
    graph = model.graph
    replaced = {node.output[0] for product in products for node in product.nodes}
    nodes = []
    by_output = {product.output: product for product in products}
    for node in graph.node:
        product = by_output.get(node.output[0])
        if product:
            name = f"{product.output}_float_weights"
            weights = (product.weights * product.scales).astype(np.float32)
            graph.initializer.append(numpy_helper.from_array(weights, name))
            plain = f"{product.output}_float" if product.bias else product.output
            nodes.append(helper.make_node("MatMul", [product.activation, name], [plain]))
            if product.bias:
                nodes.append(helper.make_node("Add", [plain, product.bias], [product.output]))
        elif node.output[0] not in replaced:
            nodes.append(node)
    _set_nodes(graph, nodes)
    return model


def _ranges(
    model: onnx.ModelProto, activations: Sequence[str], tokenizer: Path, in_pairs: bool
) -> dict[str, tuple[float, float]]:
    """Return the least and the greatest value of each activation over the calibration texts."""
    names = list(dict.fromkeys(activations))
    model.graph.output.extend(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    inputs = [tensor.name for tensor in session.get_inputs()]
    low, high = np.zeros(len(names)), np.zeros(len(names))
    for feeds in _feeds(tokenizer, in_pairs):
        values = session.run(names, {name: feeds[name] for name in inputs})
        low = np.minimum(low, [value.min() for value in values])
        high = np.maximum(high, [value.max() for value in values])
    return {name: (float(low[index]), float(high[index])) for index, name in enumerate(names)}


def _feeds(tokenizer: Path, in_pairs: bool) -> Iterator[dict[str, Array]]:
    encoder = Tokenizer.from_file(str(tokenizer))
    encoder.no_padding()
    encoder.enable_truncation(_MAX_TOKENS)
    texts = CALIBRATION.read_text(encoding="utf-8").splitlines()
    for index, text in enumerate(texts):
        # Half of the pairs are of texts that belong together, because a text's neighbors in the file often do.
        other = texts[(index + (1 if index % 2 else len(texts) // 2)) % len(texts)]
        encoding = encoder.encode(text[:100], other) if in_pairs else encoder.encode(text)
        if not encoding.ids:  # an empty text, with a tokenizer that adds no special tokens
            continue
        ids = np.array([encoding.ids])
        yield {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "token_type_ids": np.array([encoding.type_ids]),
            "position_ids": np.arange(ids.shape[1])[None],
        }


class _Quantized(NamedTuple):
    """The names of a quantized activation, its scale and its zero point, and of its scales per row, if any."""

    values: str
    scale: str
    zero_point: str
    row_scales: str | None


class _Quantizers:
    """Adds the nodes that quantize activations; an activation of several products is quantized once."""

    def __init__(self, model: onnx.ModelProto, ranges: dict[str, tuple[float, float]]):
        self._graph, self._ranges = model.graph, ranges
        self._opset = next(opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx"))
        self._last_axis = self.constant(np.array([-1], np.int64), "last_axis")
        self._made: dict[str, _Quantized] = {}
        self._one = self.constant(np.float32(1), "scale_of_1")
        self._middle = self.constant(np.uint8(128), "zero_point_of_128")
        self._inverse = self.constant(np.float32(1 / 127), "one_127th")
        self._tiny = self.constant(np.float32(1e-12), "tiny_row_scale")
        self._minimum = self.constant(np.float32(_GELU_MINIMUM / 127), "minimal_row_scale")

    def constant(self, value: Any, name: str) -> str:
        self._graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def quantize(self, activation: str, by_row: bool) -> tuple[_Quantized, list[onnx.NodeProto]]:
        """Return the quantized activation, and the nodes for it that the graph does not have yet."""
        if activation in self._made:
            return self._made[activation], []
        low, high = self._ranges[activation]
        values = f"{activation}_fixed"
        if by_row:
            made, nodes = self._by_row(activation, values, is_gelu=low > -_GELU_MINIMUM - 0.01)
        else:
            scale = np.float32((high - low) / 255 or 1)
            zero_point = np.uint8(np.clip(round(-low / float(scale)), 0, 255))
            names = self.constant(scale, f"{values}_scale"), self.constant(zero_point, f"{values}_zero_point")
            made = _Quantized(values, *names, None)
            nodes = [helper.make_node("QuantizeLinear", [activation, *names], [values])]
        self._made[activation] = made
        return made, nodes

    def _by_row(self, activation: str, values: str, is_gelu: bool) -> tuple[_Quantized, list[onnx.NodeProto]]:
        names = ("magnitude", "largest", "scaled", "scales", "divided")
        magnitude, largest, scaled, scales, divided = (f"{values}_{name}" for name in names)
        nodes = [] if is_gelu else [helper.make_node("Abs", [activation], [magnitude])]
        nodes += [
            self._largest(activation if is_gelu else magnitude, largest),
            helper.make_node("Mul", [largest, self._inverse], [scaled]),
            helper.make_node("Max", [scaled, self._minimum if is_gelu else self._tiny], [scales]),
            helper.make_node("Div", [activation, scales], [divided]),
            helper.make_node("QuantizeLinear", [divided, self._one, self._middle], [values]),
        ]
        return _Quantized(values, self._one, self._middle, scales), nodes

    def _largest(self, values: str, largest: str) -> onnx.NodeProto:
        if self._opset < _AXES_ARE_AN_INPUT:
            return helper.make_node("ReduceMax", [values], [largest], axes=[-1], keepdims=1)
        return helper.make_node("ReduceMax", [values, self._last_axis], [largest], keepdims=1)


def _replace(graph: onnx.GraphProto, products: Sequence[_Product], quantizers: _Quantizers) -> None:
    replaced = {node.output[0] for product in products for node in product.nodes}
    by_output = {product.output: product for product in products}
    nodes: list[onnx.NodeProto] = []
    for node in list(graph.node):
        product = by_output.get(node.output[0])
        if product:
            nodes += _replacement(product, quantizers)
        elif node.output[0] not in replaced:
            nodes.append(node)
    _set_nodes(graph, nodes)


def _replacement(product: _Product, quantizers: _Quantizers) -> list[onnx.NodeProto]:
    rows, columns = product.weights.shape
    quantized, nodes = quantizers.quantize(product.activation, by_row=rows >= _WIDER * columns)
    weights = quantizers.constant(product.weights, f"{product.output}_weights")
    scales = np.broadcast_to(product.scales, (columns,)).astype(np.float32)
    inputs = [
        quantized.values,
        weights,
        quantized.scale,
        quantizers.constant(scales, f"{product.output}_weight_scales"),
    ]
    inputs += [quantized.zero_point, ""]
    if quantized.row_scales is None:
        inputs += [product.bias] if product.bias else []
        return [*nodes, helper.make_node("MatMulIntegerToFloat", inputs, [product.output], domain="com.microsoft")]
    by_one, scaled = f"{product.output}_by_one", f"{product.output}_scaled" if product.bias else product.output
    nodes.append(helper.make_node("MatMulIntegerToFloat", inputs[:5], [by_one], domain="com.microsoft"))
    nodes.append(helper.make_node("Mul", [by_one, quantized.row_scales], [scaled]))
    if product.bias:
        nodes.append(helper.make_node("Add", [scaled, product.bias], [product.output]))
    return nodes


def _set_nodes(graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto]) -> None:
    """Set the nodes of a graph, which are in order, without those and the constants that the outputs do not need."""
    used = {output.name for output in graph.output}
    kept: list[onnx.NodeProto] = []
    for node in reversed(nodes):
        if any(output in used for output in node.output):
            kept.append(node)
            used.update(node.input)
    kept.reverse()
    del graph.node[:]
    graph.node.extend(kept)
    constants = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(constants)
