"""Splits an exported model into two: its backend, and its network for Triton's own onnxruntime or TensorRT backend."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import model_config_pb2 as pb

from contract.paths import latest_version
from export.fetch import ExportError
from export.repository import link_tree, replacing
from export.targets import MOUNT, TRITON_VERSION
from export.targets.files import require_replaceable, write_config
from export.triton_config import parse_config

_FILE, _PLAN = "model.onnx", "model.plan"
# Triton's types of tensors by onnxruntime's names.
_TYPES = {"tensor(float)": pb.TYPE_FP32, "tensor(float16)": pb.TYPE_FP16, "tensor(int64)": pb.TYPE_INT64}
_TASKS = ("embedding", "rerank", "background_removal")

# Engines of TensorRT are built for a range of shapes. These are the rows of a batch, the tokens of a row in most
# requests, and the images of a batch.
_MAX_ROWS, _USUAL_ROWS, _USUAL_TOKENS, _MAX_IMAGES = 32, 8, 128, 8
_WORKSPACE_BYTES = 4 << 30
# What a batch may have on a GPU, whose memory is larger than the CPU cache that the default is for.
_BATCH_TOKENS = _MAX_ROWS * 512
_MIN_SIMILARITY = 0.999


@dataclass(frozen=True)
class _Network:
    """The network of an exported model: its file, its inputs by their names, and its first output."""

    path: Path
    inputs: Mapping[str, tuple[int, list[int]]]
    """Name → type and dimensions, -1 for any size."""
    output: tuple[str, int, list[int]]
    max_tokens: int
    """Of a row; 0 if the inputs are images."""

    @property
    def is_fixed(self) -> bool:
        """Whether all batches have the same size."""
        return next(iter(self.inputs.values()))[1][0] > 0

    @property
    def max_rows(self) -> int:
        """The largest batch in the range of an engine of TensorRT."""
        if self.is_fixed:
            return next(iter(self.inputs.values()))[1][0]
        return _MAX_ROWS if self.max_tokens else _MAX_IMAGES

    def shapes(self, rows: int, tokens: int) -> str:
        """Return the shapes of a batch, as TensorRT's programs read them."""
        sizes = {
            name: [rows, *(size if size > 0 else tokens for size in dims[1:])]
            for name, (_, dims) in self.inputs.items()
        }
        return ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in sizes.items())

    def ranges(self) -> dict[str, str]:
        """Return the shapes of the smallest, the usual and the largest batch."""
        rows, tokens = self.max_rows, self.max_tokens
        first, usual = (rows, rows) if self.is_fixed else (1, min(_USUAL_ROWS, rows))
        return {
            "min": self.shapes(first, 1),
            "opt": self.shapes(usual, min(_USUAL_TOKENS, tokens)),
            "max": self.shapes(rows, tokens),
        }


def write_for_onnxruntime(model: Path, repository: Path, accelerator: str) -> None:
    """Write a model and its network for Triton's onnxruntime backend, in CUDA or through TensorRT.

    The same folders are served without a GPU too. `model` is an exported model's folder. Raises ExportError if the
    model has no network that this backend can run.
    """
    network = _read(model)
    uses_tensorrt = accelerator == "tensorrt"
    config = _config(model.name, network)
    config.backend = "onnxruntime"
    if uses_tensorrt:
        _accelerate(config, network)
    elif _is_quantized(network.path):
        print(f"{model.name}: note: GPUs compute int8 weights more slowly than others; see --precision f32")
    _write(model, repository, network, config, "onnxruntime-gpu", limited=uses_tensorrt)


def write_for_tensorrt(model: Path, repository: Path) -> None:
    """Write a model, and its network in float16 from which TensorRT builds a plan: see `tensorrt_commands`.

    Raises ExportError if TensorRT cannot run the network, or if float16 changes its results.
    """
    network = _read(model)
    if _is_quantized(network.path):
        raise ExportError(
            f"{model.name}: TensorRT cannot run its int8 weights. Export the publisher's folder with --precision f32"
        )
    if network.path.with_name(f"{_FILE}_data").exists():
        raise ExportError(f"{model.name}: the network is too large to be converted to float16; use onnxruntime-gpu")
    config = _config(model.name, network)
    config.platform = "tensorrt_plan"
    config.instance_group.add(kind=pb.ModelInstanceGroup.KIND_GPU, count=1, profile=["0"])
    _write(model, repository, network, config, "tensorrt", limited=True)
    target = repository / f"{model.name}-network" / "1" / _FILE
    half = _half_precision(network)
    target.unlink()
    target.write_bytes(half)


def tensorrt_commands(model: Path, repository: Path) -> list[str]:
    """Return the commands that build the plan on the GPU host. The plan fits only its GPU and its TensorRT."""
    network = _read(model)
    folder = f"{MOUNT}/{model.name}-network/1"
    options = {"onnx": f"{folder}/{_FILE}", "saveEngine": f"{folder}/{_PLAN}"}
    options |= {f"{name}Shapes": shapes for name, shapes in network.ranges().items()}
    options |= {"memPoolSize": f"workspace:{_WORKSPACE_BYTES >> 20}M", "timingCacheFile": f"{MOUNT}/.timing-cache"}
    run = f"docker run --rm --gpus all -v {shlex.quote(str(repository))}:{MOUNT}"
    image = f"nvcr.io/nvidia/tensorrt:{TRITON_VERSION}-py3"
    flags = " ".join(f"--{name}={value}" for name, value in options.items())
    return [f"{run} {image} trtexec {flags} --skipInference"]


def _read(model: Path) -> _Network:
    """Return the network of an exported model. Raises ExportError if it has none of the expected form."""
    import onnxruntime  # slow to import

    config = parse_config(model / "config.pbtxt")
    task = config.parameters["task"].string_value
    version = latest_version(model)
    if task not in _TASKS or not (version / _FILE).exists():
        raise ExportError(
            f"{model.name}: only embedding, rerank and background removal models in ONNX have these targets"
            + (f", and this is a {task.replace('_', ' ')} model" if task not in _TASKS else "")
        )
    session = onnxruntime.InferenceSession(version / _FILE, providers=["CPUExecutionProvider"])
    inputs = {tensor.name: (_type(tensor), _dims(tensor)) for tensor in session.get_inputs()}
    first = session.get_outputs()[0]
    tokens = config.parameters["context_length"].string_value if task != "background_removal" else "0"
    return _Network(version / _FILE, inputs, (first.name, _type(first), _dims(first)), int(tokens))


def _type(tensor: Any) -> int:
    if tensor.type not in _TYPES:
        raise ExportError(f"the tensor {tensor.name} has the type {tensor.type}, which is not supported")
    return int(_TYPES[tensor.type])


def _dims(tensor: Any) -> list[int]:
    return [size if isinstance(size, int) else -1 for size in tensor.shape]


def _config(name: str, network: _Network) -> pb.ModelConfig:
    """Return the configuration of the network's model, which lacks the backend.

    It sets no kind of instance: Triton then uses the GPUs if there are any. The calling backend makes the batches.
    """
    config = pb.ModelConfig(name=f"{name}-network", max_batch_size=0)
    for tensor, (kind, dims) in network.inputs.items():
        config.input.add(name=tensor, data_type=kind, dims=dims)
    output, kind, dims = network.output
    config.output.add(name=output, data_type=kind, dims=dims)
    warmup = config.model_warmup.add(name="one row", batch_size=0)
    for tensor, (kind, dims) in network.inputs.items():
        sizes = [size if size > 0 else 1 if index == 0 else 16 for index, size in enumerate(dims)]
        warmup.inputs[tensor].CopyFrom(pb.ModelWarmup.Input(data_type=kind, dims=sizes, zero_data=True))
    return config


def _accelerate(config: pb.ModelConfig, network: _Network) -> None:
    """Let onnxruntime build engines of TensorRT in float16, and keep them where the next start finds them."""
    accelerator = config.optimization.execution_accelerators.gpu_execution_accelerator.add(name="tensorrt")
    cache = f"{MOUNT}/.engines"
    values = {
        "precision_mode": "FP16",
        "max_workspace_size_bytes": str(_WORKSPACE_BYTES),
        "trt_engine_cache_enable": "true",
        "trt_engine_cache_path": cache,
        "trt_engine_cache_prefix": config.name,
        "trt_timing_cache_enable": "true",
        "trt_timing_cache_path": cache,
    }
    values |= {f"trt_profile_{name}_shapes": shapes for name, shapes in network.ranges().items()}
    for key, value in values.items():
        accelerator.parameters[key] = value


def _write(
    model: Path, repository: Path, network: _Network, config: pb.ModelConfig, target: str, *, limited: bool
) -> None:
    """Write both models. `limited` is whether batches must not be larger than those of the engine."""
    rows = {"max_rows": network.max_rows} if limited or network.is_fixed else {}
    description = {"model": config.name, "inputs": list(network.inputs), "output": network.output[0], **rows}
    for name in (model.name, config.name):
        require_replaceable(repository / name)
    with replacing(repository / config.name) as new:
        (new / "1").mkdir()
        for path in network.path.parent.glob(f"{_FILE}*"):  # large networks have their weights in a second file
            link_tree(path, new / "1" / path.name)
        write_config(config, new, target)
    front = parse_config(model / "config.pbtxt")
    front.parameters["network"].string_value = json.dumps(description)
    if "max_batch_tokens" in front.parameters:
        front.parameters["max_batch_tokens"].string_value = str(_BATCH_TOKENS)
    with replacing(repository / model.name) as new:
        (new / "1").mkdir()
        for path in sorted(network.path.parent.iterdir()):
            if not path.name.startswith(_FILE):
                link_tree(path, new / "1" / path.name)
        write_config(front, new, target)


def _is_quantized(path: Path) -> bool:
    import onnx  # slow to import

    nodes = onnx.load(str(path), load_external_data=False).graph.node
    return any(
        "Integer" in node.op_type or "QuantizeLinear" in node.op_type or "QLinear" in node.op_type for node in nodes
    )


def _half_precision(network: _Network) -> bytes:
    """Return the network in float16, with its inputs and outputs as they are. Raises ExportError if results change."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = convert_float_to_float16(onnx.load(str(network.path)), keep_io_types=True)
    half: bytes = model.SerializeToString()
    feeds = _example(network)
    similarity = _similarity(_run(network.path.read_bytes(), feeds), _run(half, feeds))
    if not similarity >= _MIN_SIMILARITY:
        raise ExportError(f"the results in float16 differ (cosine similarity {similarity:.4f}); use onnxruntime-gpu")
    return half


def _example(network: _Network) -> dict[str, NDArray[Any]]:
    """Return a batch of one row of tokens or one image, with which two networks are compared.

    The image has a bright disc, because networks find nothing in noise.
    """
    random = np.random.default_rng(0)
    feeds: dict[str, NDArray[Any]] = {}
    for name, (kind, dims) in network.inputs.items():
        shape = [size if size > 0 else 1 if index == 0 else 16 for index, size in enumerate(dims)]
        if kind != pb.TYPE_INT64:
            y, x = np.mgrid[-1 : 1 : shape[-2] * 1j, -1 : 1 : shape[-1] * 1j]
            feeds[name] = np.broadcast_to(np.where(x**2 + y**2 < 0.4, 1.0, -1.0), shape).astype(np.float32)
        elif name == "input_ids":
            feeds[name] = random.integers(1, 1000, shape)
        elif name == "position_ids":
            feeds[name] = np.broadcast_to(np.arange(shape[1]), shape).astype(np.int64)
        else:
            feeds[name] = np.full(shape, int(name == "attention_mask"), np.int64)
    return feeds


def _run(content: bytes, feeds: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    output: Sequence[Any] = session.run(None, dict(feeds))
    return np.asarray(output[0], np.float64).ravel()


def _similarity(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    return float(first @ second / (np.linalg.norm(first) * np.linalg.norm(second)))
