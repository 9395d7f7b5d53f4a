"""Splits an exported model into two: its backend, and its network for Triton's own onnxruntime or TensorRT backend."""

import hashlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import model_config_pb2 as pb

from contract.paths import latest_version
from export.fetch import ExportError
from export.repository import link_tree, replacing
from export.targets import ENGINES, TRITON_VERSION, mounted
from export.targets.files import is_current, require_replaceable, write_config
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
    """Name → type and dimensions, -1 for any size. The first one is the batch."""
    output: tuple[str, int, list[int]]
    lengths: tuple[int, int, int]
    """The smallest, the usual and the largest size of other dimensions that are -1: tokens, or the side of images."""
    reads_text: bool

    @property
    def fixed_rows(self) -> int | None:
        """The size of all batches, if there is only one."""
        rows = next(iter(self.inputs.values()))[1][0]
        return rows if rows > 0 else None

    @property
    def max_rows(self) -> int:
        """The largest batch in the range of an engine of TensorRT."""
        most = min(_MAX_ROWS, max(1, _BATCH_TOKENS // self.lengths[2])) if self.reads_text else _MAX_IMAGES
        return self.fixed_rows or most

    def shapes(self, rows: int, length: int) -> str:
        """Return the shapes of a batch, as TensorRT's programs read them."""
        sizes = {
            name: [rows, *(size if size > 0 else length for size in dims[1:])]
            for name, (_, dims) in self.inputs.items()
        }
        return ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in sizes.items())

    def ranges(self) -> dict[str, str]:
        """Return the shapes of the smallest, the usual and the largest batch; nothing if all sizes are fixed."""
        if all(size > 0 for _, dims in self.inputs.values() for size in dims):
            return {}
        rows = self.fixed_rows
        numbers = (rows or 1, rows or min(_USUAL_ROWS, self.max_rows), self.max_rows)
        return {
            name: self.shapes(number, length)
            for name, number, length in zip(("min", "opt", "max"), numbers, self.lengths, strict=True)
        }


def write_for_onnxruntime(model: Path, repository: Path, accelerator: str) -> bool:
    """Write a model and its network for Triton's onnxruntime backend, in CUDA or through TensorRT.

    The same folders are served without a GPU too. `model` is an exported model's folder. Return False if both folders
    are up to date. Raises ExportError if the model has no network that this backend can run.
    """
    network = _read(model)
    record = _record(model, "onnxruntime-gpu", accelerator)
    config = _config(model.name, network)
    config.backend = "onnxruntime"
    if accelerator == "cuda":
        if _is_quantized(network.path):
            print(f"{model.name}: note: GPUs compute int8 weights more slowly than others; see --precision f32")
        return _write(model, repository, network, config, record)
    _require_floats(model.name, network)
    _accelerate(config, network)
    return _write(model, repository, network, config, record, max_rows=network.max_rows, half=True)


def write_for_tensorrt(model: Path, repository: Path) -> bool:
    """Write a model, and its network in float16 from which TensorRT builds a plan: see `tensorrt_commands`.

    Return False if both folders are up to date. Raises ExportError if TensorRT cannot run the network, or if float16
    changes its results.
    """
    network = _read(model)
    _require_floats(model.name, network)
    config = _config(model.name, network)
    config.platform = "tensorrt_plan"
    config.instance_group.add(kind=pb.ModelInstanceGroup.KIND_GPU, count=1, profile=["0"])
    record = _record(model, "tensorrt")
    return _write(model, repository, network, config, record, max_rows=network.max_rows, half=True)


def tensorrt_commands(model: Path, repository: Path) -> list[str]:
    """Return the commands that build the plan on the GPU host. The plan fits only its GPU and its TensorRT."""
    network, mount = _read(model), mounted(repository)
    folder = f"{mount}/{model.name}-network/1"
    options = {"onnx": f"{folder}/{_FILE}", "saveEngine": f"{folder}/{_PLAN}"}
    options |= {f"{name}Shapes": shapes for name, shapes in network.ranges().items()}
    options |= {"memPoolSize": f"workspace:{_WORKSPACE_BYTES >> 20}M", "timingCacheFile": f"{mount}/.timing-cache"}
    run = f"docker run --rm --gpus all -v {shlex.quote(f'{repository}:{mount}')}"
    image = f"nvcr.io/nvidia/tensorrt:{TRITON_VERSION}-py3"
    flags = shlex.join(f"--{name}={value}" for name, value in options.items())
    return [f"{run} {image} trtexec {flags} --skipInference"]


def _record(model: Path, target: str, accelerator: str = "") -> dict[str, Any]:
    config = (model / "config.pbtxt").read_bytes()  # has the fingerprint of the model
    return {
        "target": target,
        "accelerator": accelerator,
        "config": hashlib.sha256(config).hexdigest(),
        "version": latest_version(model).name,
    }


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
    reads_text = task != "background_removal"
    size = int(config.parameters["context_length" if reads_text else "size"].string_value)
    lengths = (1, min(_USUAL_TOKENS, size), size) if reads_text else (size, size, size)
    output = (first.name, _type(first), _dims(first))
    return _Network(version / _FILE, inputs, output, lengths, reads_text)


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
    # Without batches of Triton's, the size must be 1; with 0, Triton would skip the warm-up.
    warmup = config.model_warmup.add(name="one row", batch_size=1)
    for tensor, (kind, _) in network.inputs.items():
        warmup.inputs[tensor].CopyFrom(
            pb.ModelWarmup.Input(data_type=kind, dims=_sizes(network, tensor), zero_data=True)
        )
    return config


def _sizes(network: _Network, tensor: str) -> list[int]:
    """Return the shape of an input with one row, or as many as it must have, of the usual length."""
    dims = network.inputs[tensor][1]
    return [network.fixed_rows or 1, *(size if size > 0 else network.lengths[1] for size in dims[1:])]


def _accelerate(config: pb.ModelConfig, network: _Network) -> None:
    """Let onnxruntime build engines of TensorRT, and keep them where the next start finds them."""
    accelerator = config.optimization.execution_accelerators.gpu_execution_accelerator.add(name="tensorrt")
    values = {
        "max_workspace_size_bytes": str(_WORKSPACE_BYTES),
        "trt_engine_cache_enable": "true",
        "trt_engine_cache_path": ENGINES,
        "trt_engine_cache_prefix": config.name,
        "trt_timing_cache_enable": "true",
        "trt_timing_cache_path": ENGINES,
    }
    values |= {f"trt_profile_{name}_shapes": shapes for name, shapes in network.ranges().items()}
    for key, value in values.items():
        accelerator.parameters[key] = value


def _write(
    model: Path,
    repository: Path,
    network: _Network,
    config: pb.ModelConfig,
    record: Mapping[str, Any],
    *,
    max_rows: int | None = None,
    half: bool = False,
) -> bool:
    """Write both models, unless they are up to date. With `half`, the network is written in float16."""
    folders = [repository / name for name in (model.name, config.name)]
    for folder in folders:
        require_replaceable(folder)
    if all(is_current(folder, record) for folder in folders):
        return False
    content = _half_precision(model.name, network) if half else None
    max_rows = max_rows or network.fixed_rows
    description = {"model": config.name, "inputs": list(network.inputs), "output": network.output[0]}
    description |= {"max_rows": max_rows} if max_rows else {}
    with replacing(repository / config.name) as new:
        (new / "1").mkdir()
        if content is not None:
            (new / "1" / _FILE).write_bytes(content)
        else:
            for path in network.path.parent.glob(f"{_FILE}*"):  # large networks have their weights in a second file
                link_tree(path, new / "1" / path.name)
        write_config(config, new, record)
    front = parse_config(model / "config.pbtxt")
    front.parameters["network"].string_value = json.dumps(description)
    if "max_batch_tokens" in front.parameters:
        front.parameters["max_batch_tokens"].string_value = str(_BATCH_TOKENS)
    with replacing(repository / model.name) as new:
        (new / "1").mkdir()
        for path in sorted(network.path.parent.iterdir()):
            if not path.name.startswith(_FILE):
                link_tree(path, new / "1" / path.name)
        write_config(front, new, record)
    return True


def _require_floats(name: str, network: _Network) -> None:
    """Raise ExportError if the network cannot be converted to float16, which TensorRT reads."""
    if _is_quantized(network.path):
        raise ExportError(
            f"{name}: TensorRT cannot run its int8 weights. Export the publisher's folder with --precision f32"
        )
    if network.path.with_name(f"{_FILE}_data").exists():
        raise ExportError(f"{name}: the network is too large to be converted to float16; use --accelerator cuda")


def _is_quantized(path: Path) -> bool:
    import onnx  # slow to import

    types = {node.op_type for node in onnx.load(str(path), load_external_data=False).graph.node}
    return any(mark in name for name in types for mark in ("Integer", "QuantizeLinear", "QLinear"))


def _half_precision(name: str, network: _Network) -> bytes:
    """Return the network in float16 with only its first output. Its inputs and that output stay as they are.

    TensorRT's backend needs a configuration of all outputs. Raises ExportError if the results change.
    """
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = onnx.load(str(network.path))
    del model.graph.output[1:]
    half: bytes = convert_float_to_float16(model, keep_io_types=True).SerializeToString()
    feeds = _example(network)
    similarity = _similarity(_run(network.path.read_bytes(), feeds), _run(half, feeds))
    if not similarity >= _MIN_SIMILARITY:
        raise ExportError(
            f"{name}: the results in float16 differ (cosine similarity {similarity:.4f}); use --accelerator cuda"
        )
    return half


def _example(network: _Network) -> dict[str, NDArray[Any]]:
    """Return a batch of one row of tokens or one image, with which two networks are compared.

    The image has a bright disc, because networks find nothing in noise.
    """
    random = np.random.default_rng(0)
    feeds: dict[str, NDArray[Any]] = {}
    for name, (kind, _) in network.inputs.items():
        shape = _sizes(network, name)
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
    return np.asarray(session.run(None, dict(feeds))[0], np.float64).ravel()


def _similarity(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    return float(first @ second / (np.linalg.norm(first) * np.linalg.norm(second)))
