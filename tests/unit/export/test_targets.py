"""Repositories for GPU hosts: configurations, networks, commands, and models without a target."""

import json
import os
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from contract.chat_template import load_chat_template
from export.catalog import load_catalog
from export.fetch import ExportError
from export.resolve import Choices, resolve_published
from export.targets.networks import tensorrt_commands, write_for_onnxruntime, write_for_tensorrt
from export.targets.vllm import write_for_vllm
from export.triton_config import parse_config, render_config
from tests.support.hub import COMMIT, Hub, running_hub
from trident.cli import main

WIDTH = 8


def write_network(path, quantized=False):
    """Write a network that looks up a vector for each token. It has a second output."""
    table = numpy_helper.from_array(np.random.default_rng(0).standard_normal((1000, WIDTH)).astype(np.float32), "table")
    mask = helper.make_node("Cast", ["attention_mask"], ["float_mask"], to=TensorProto.FLOAT)
    axis = numpy_helper.from_array(np.array([2]), "axis")
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        mask,
        helper.make_node("Unsqueeze", ["float_mask", "axis"], ["column"]),
        helper.make_node("Mul", ["rows", "column"], ["hidden"]),
    ]
    if quantized:
        nodes.append(helper.make_node("DynamicQuantizeLinear", ["hidden"], ["q", "scale", "zero"]))
    ids, masks = (
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
        for name in ("input_ids", "attention_mask")
    )
    output = helper.make_tensor_value_info("hidden", TensorProto.FLOAT, ["batch", "tokens", WIDTH])
    second = helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["batch", "tokens", WIDTH])
    graph = helper.make_graph(nodes, "network", [ids, masks], [output, second], [table, axis])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


@pytest.fixture
def encoder(tmp_path):
    """Return the folder of an exported embedding model."""
    folder = tmp_path / "models" / "bge-small-en-v1.5"
    (folder / "1").mkdir(parents=True)
    write_network(folder / "1" / "model.onnx")
    (folder / "1" / "tokenizer.json").write_text("{}", encoding="utf-8")
    config = render_config(load_catalog()["bge-small-en-v1.5"], {})
    (folder / "config.pbtxt").write_text(config, encoding="utf-8")
    return folder


def files(folder):
    paths = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in paths if not path.endswith("target.json"))


def test_onnxruntime_repository_has_the_model_and_its_network(encoder, tmp_path):
    output = tmp_path / "gpu"
    write_for_onnxruntime(encoder, output, "cuda")
    assert files(output) == [
        "bge-small-en-v1.5-network/1/model.onnx",
        "bge-small-en-v1.5-network/config.pbtxt",
        "bge-small-en-v1.5/1/tokenizer.json",
        "bge-small-en-v1.5/config.pbtxt",
    ]
    network = parse_config(output / "bge-small-en-v1.5-network" / "config.pbtxt")
    assert (network.backend, network.platform, network.max_batch_size) == ("onnxruntime", "", 0)
    # Triton refuses KIND_GPU on a machine without a GPU, and chooses by itself without a kind.
    assert not network.instance_group
    assert {tensor.name: list(tensor.dims) for tensor in network.input} == {
        "input_ids": [-1, -1],
        "attention_mask": [-1, -1],
    }
    assert not network.optimization.ListFields()
    (warmup,) = network.model_warmup
    assert (warmup.batch_size, list(warmup.inputs["input_ids"].dims)) == (1, [1, 128])  # Triton skips a batch of 0
    front = parse_config(output / "bge-small-en-v1.5" / "config.pbtxt")
    assert front.backend == "encoder"
    assert json.loads(front.parameters["network"].string_value) == {
        "model": "bge-small-en-v1.5-network",
        "inputs": ["input_ids", "attention_mask"],
        "output": "hidden",
    }


def test_tensorrt_accelerator_knows_the_shapes_that_the_backend_sends(encoder, tmp_path):
    write_for_onnxruntime(encoder, tmp_path / "gpu", "tensorrt")
    network = parse_config(tmp_path / "gpu" / "bge-small-en-v1.5-network" / "config.pbtxt")
    (accelerator,) = network.optimization.execution_accelerators.gpu_execution_accelerator
    assert accelerator.name == "tensorrt"
    assert accelerator.parameters["trt_engine_cache_path"] == "/engines"  # not a folder among the models
    assert accelerator.parameters["trt_profile_min_shapes"] == "input_ids:1x1,attention_mask:1x1"
    assert accelerator.parameters["trt_profile_max_shapes"] == "input_ids:32x512,attention_mask:32x512"
    front = parse_config(tmp_path / "gpu" / "bge-small-en-v1.5" / "config.pbtxt")
    assert json.loads(front.parameters["network"].string_value)["max_rows"] == 32
    assert int(front.parameters["max_batch_tokens"].string_value) == 32 * 512


def test_tensorrt_repository_has_the_network_in_float16_and_a_command_that_builds_the_plan(encoder, tmp_path):
    output = tmp_path / "gpu"
    write_for_tensorrt(encoder, output)
    network = parse_config(output / "bge-small-en-v1.5-network" / "config.pbtxt")
    assert (network.platform, network.backend) == ("tensorrt_plan", "")
    assert network.instance_group[0].kind == network.instance_group[0].KIND_GPU
    path = output / "bge-small-en-v1.5-network" / "1" / "model.onnx"
    model = onnx.load(path)
    assert {tensor.data_type for tensor in model.graph.initializer if tensor.name == "table"} == {TensorProto.FLOAT16}
    feeds = {"input_ids": np.array([[5, 6]]), "attention_mask": np.array([[1, 1]])}
    assert [output.name for output in model.graph.output] == ["hidden"]  # the configuration must have all of them
    half, full = (
        onnxruntime.InferenceSession(file).run(["hidden"], feeds)[0] for file in (path, encoder / "1" / "model.onnx")
    )
    assert half.dtype == np.float32
    assert np.allclose(half, full, atol=1e-2)
    (command,) = tensorrt_commands(encoder, output)
    assert "trtexec --onnx=/models/repository/bge-small-en-v1.5-network/1/model.onnx" in command
    assert "--optShapes=input_ids:8x128,attention_mask:8x128 --maxShapes=input_ids:32x512" in command
    assert "--fp16" not in command  # TensorRT 11 has no such flag


def test_int8_weights_are_refused_for_tensorrt(encoder, tmp_path):
    write_network(encoder / "1" / "model.onnx", quantized=True)
    with pytest.raises(ExportError, match="--precision f32"):
        write_for_tensorrt(encoder, tmp_path / "gpu")
    with pytest.raises(ExportError, match="--precision f32"):
        write_for_onnxruntime(encoder, tmp_path / "gpu", "tensorrt")
    assert not (tmp_path / "gpu").exists()


def test_networks_with_fixed_shapes_have_no_ranges(tmp_path):
    """TensorRT's programs refuse them for such networks."""
    folder = tmp_path / "models" / "u2netp"
    (folder / "1").mkdir(parents=True)
    picture = helper.make_tensor_value_info("picture", TensorProto.FLOAT, [1, 3, 320, 320])
    mask = helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1, 1, 320, 320])
    axes = numpy_helper.from_array(np.array([1]), "axes")
    node = helper.make_node("ReduceSum", ["picture", "axes"], ["mask"])
    graph = helper.make_graph([node], "network", [picture], [mask], [axes])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), folder / "1/model.onnx"
    )
    (folder / "config.pbtxt").write_text(render_config(load_catalog()["u2netp"], {}), encoding="utf-8")
    (command,) = tensorrt_commands(folder, tmp_path / "gpu")
    assert "Shapes" not in command
    assert write_for_onnxruntime(folder, tmp_path / "gpu", "tensorrt")
    network = parse_config(tmp_path / "gpu" / "u2netp-network" / "config.pbtxt")
    (accelerator,) = network.optimization.execution_accelerators.gpu_execution_accelerator
    assert not any("profile" in key for key in accelerator.parameters)


def test_long_texts_are_in_smaller_batches(encoder, tmp_path):
    """Engines need memory for the largest batch, even if none is that large."""
    config = encoder / "config.pbtxt"
    config.write_text(config.read_text(encoding="utf-8").replace('"512"', '"8192"', 1), encoding="utf-8")
    assert "--maxShapes=input_ids:2x8192" in tensorrt_commands(encoder, tmp_path / "gpu")[0]


def test_a_plan_and_edits_are_kept_while_the_model_is_the_same(encoder, tmp_path):
    output = tmp_path / "gpu"
    assert write_for_tensorrt(encoder, output)
    plan = output / "bge-small-en-v1.5-network" / "1" / "model.plan"
    plan.write_bytes(b"plan")
    assert not write_for_tensorrt(encoder, output)
    assert plan.read_bytes() == b"plan"
    config = encoder / "config.pbtxt"
    config.write_text(config.read_text(encoding="utf-8").replace("cls", "mean"), encoding="utf-8")
    assert write_for_tensorrt(encoder, output)
    assert not plan.exists()


def test_other_tasks_are_refused(tmp_path):
    folder = tmp_path / "models" / "hibari"
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(render_config(load_catalog()["hibari"], {}), encoding="utf-8")
    with pytest.raises(ExportError, match="this is a speech model"):
        write_for_onnxruntime(folder, tmp_path / "gpu", "cuda")


def test_folders_of_others_are_not_replaced(encoder, tmp_path):
    with pytest.raises(ExportError, match="was not written by --target"):
        write_for_onnxruntime(encoder, encoder.parent, "cuda")
    write_for_onnxruntime(encoder, tmp_path / "gpu", "cuda")
    write_for_onnxruntime(encoder, tmp_path / "gpu", "tensorrt")


CONFIG = {
    "architectures": ["SomeNewForCausalLM"],
    "model_type": "some_new",
    "vision_config": {},
    "text_config": {"max_position_embeddings": 131_072},
}
CHAT = {
    "config.json": json.dumps(CONFIG).encode(),
    "tokenizer.json": b"{}",
    "tokenizer_config.json": json.dumps({"chat_template": "<think>{{ messages }}"}).encode(),
    "generation_config.json": b'{"temperature": 0.7}',
    "model.safetensors": b"weights",
}


def test_vllm_model_of_a_folder(tmp_path):
    source = tmp_path / "New-Chat"
    source.mkdir()
    for name, content in CHAT.items():
        (tmp_path / f"blob-{name}").write_bytes(content)
        (source / name).symlink_to(f"../blob-{name}")  # as in the cache of the hub
    model = resolve_published(str(source), Choices(tmp_path / "cache"))
    assert write_for_vllm(model, tmp_path / "gpu")
    assert not write_for_vllm(model, tmp_path / "gpu")
    (tmp_path / "blob-model.safetensors").write_bytes(b"WEIGHTS")
    assert write_for_vllm(model, tmp_path / "gpu")
    assert (tmp_path / "gpu/new-chat/weights/model.safetensors").read_bytes() == b"WEIGHTS"
    assert write_for_vllm(model, tmp_path / "gpu", trust_remote_code=True)
    assert json.loads((tmp_path / "gpu/new-chat/1/model.json").read_text(encoding="utf-8"))["trust_remote_code"] is True
    assert write_for_vllm(model, tmp_path / "gpu")
    model = tmp_path / "gpu" / "new-chat"
    assert json.loads((model / "1" / "model.json").read_text(encoding="utf-8")) == {
        "model": "/models/repository/new-chat/weights",
        "max_model_len": 32_768,
        "gpu_memory_utilization": 0.9,
        "disable_log_stats": True,
    }
    assert not (model / "weights" / "model.safetensors").is_symlink()
    assert load_chat_template(model / "tokenizer").render([], [], {}) == "<think>[]"
    config = parse_config(model / "config.pbtxt")
    assert (config.backend, config.model_transaction_policy.decoupled) == ("vllm", True)
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    assert parameters["context_length"] == "32768"
    assert parameters["reasoning"] == "think"
    assert json.loads(parameters["generation_defaults"]) == {"temperature": 0.7}
    assert json.loads(parameters["capabilities"]) == ["vision"]


def test_vllm_model_of_a_hub_is_not_downloaded(tmp_path):
    with running_hub(Hub({"org/New-Chat": CHAT})) as hub:
        given = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "TRIDENT_CACHE": str(tmp_path / "cache")}
        command = [sys.executable, "-m", "trident", "export", "org/New-Chat", "--target", "vllm"]
        command += ["--output", str(tmp_path / "gpu")]
        result = subprocess.run(command, env=os.environ | given, capture_output=True, encoding="utf-8", check=False)
    assert result.returncode == 0, result.stderr
    assert "docker run --rm --gpus all" in result.stdout
    assert "-e HF_TOKEN -v trident-huggingface:" in result.stdout
    arguments = json.loads((tmp_path / "gpu" / "new-chat" / "1" / "model.json").read_text(encoding="utf-8"))
    assert (arguments["model"], arguments["revision"]) == ("org/New-Chat", COMMIT)
    assert not any(name.endswith(".safetensors") for name, _ in hub.downloads)
    assert (tmp_path / "gpu" / "new-chat" / "tokenizer" / "tokenizer.json").exists()


def test_vllm_needs_a_chat_model_in_its_publishers_format(tmp_path):
    choices = Choices(tmp_path / "cache")
    with pytest.raises(ExportError, match="publisher's format"):
        resolve_published("hibari", choices)
    with pytest.raises(ExportError, match="publisher's format"):
        resolve_published("model.gguf", choices)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ExportError, match=r"config\.json is missing"):
        write_for_vllm(resolve_published(str(tmp_path / "empty"), choices), tmp_path / "gpu")


def run(*arguments, code=0):
    result = CliRunner().invoke(main, ["export", *arguments])
    assert result.exit_code == code, result.output
    return result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bge-small-en-v1.5", "--target", "vllm"], "--target requires MODEL and --output"),
        (["--target", "vllm", "--output", "gpu"], "--target requires MODEL and --output"),
        (["bge-small-en-v1.5", "--target", "vllm", "--output", "gpu", "--tune"], "neither --tune nor files"),
        (["bge-small-en-v1.5", "--output", "gpu"], "--output requires --target"),
        (["x/y", "--target", "vllm", "--output", "gpu", "--precision", "int8"], "--precision does not apply"),
        (["x/y", "--target", "tensorrt", "--output", "gpu", "--accelerator", "cuda"], "--accelerator does not apply"),
        (["bge-small-en-v1.5", "--accelerator", "cuda"], "--accelerator requires --target"),
    ],
)
def test_options_that_do_not_go_together(arguments, message):
    assert message in run(*arguments, code=2)


def test_dry_run_shows_the_commands_and_writes_nothing(encoder, tmp_path):
    arguments = ["bge-small-en-v1.5", "--dry-run", "--output", str(tmp_path / "gpu")]
    arguments += ["--model-repository", str(encoder.parent)]
    output = run(*arguments, "--target", "tensorrt")
    assert "trtexec --onnx=/models/repository/bge-small-en-v1.5-network/1/model.onnx" in output
    assert f"-v {tmp_path}/gpu:/models/repository -e TRIDENT_MODEL_REPOSITORY=/models/repository trident-tri" in output
    assert "trident-triton" in run(*arguments, "--target", "onnxruntime-gpu")
    assert not (tmp_path / "gpu").exists()
    # Containers of Trident share /models.
    arguments[3] = "/models/gpu"
    output = run(*arguments, "--target", "tensorrt")
    assert "-v /models/gpu:/models/gpu -e TRIDENT_MODEL_REPOSITORY=/models/gpu trident-triton" in output
    assert "trtexec --onnx=/models/gpu/bge-small-en-v1.5-network/1/model.onnx" in output
    arguments[3] = str(encoder.parent)
    assert "choose another --output" in run(*arguments, "--target", "tensorrt", code=1)
    (encoder / "config.pbtxt").unlink()
    arguments[3] = str(tmp_path / "gpu")
    assert "trident export bge-small-en-v1.5" in run(*arguments, "--target", "tensorrt", code=1)
