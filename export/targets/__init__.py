"""Model repositories for GPU hosts, made from exported models and from what publishers have.

A repository for one target has, for each model:

- `onnxruntime-gpu`, `tensorrt`: the model itself on Trident's backend, which reads and writes text or images, and its
  network as another model (NAME-network) on Triton's own onnxruntime or TensorRT backend, which the first one calls;
- `vllm`: a chat model on Triton's own vLLM backend.
"""

from pathlib import Path

TARGETS = ("onnxruntime-gpu", "tensorrt", "vllm")

TRITON_VERSION = "26.08"
"""The release of NVIDIA's images that the commands name. docker/triton.Dockerfile is built on the same one."""

ENGINES = "/engines"
"""Where the image keeps the engines that onnxruntime builds with TensorRT."""


def mounted(repository: Path) -> str:
    """Return where Triton's container has a repository.

    Containers of Trident share /models, so that a repository in it has the same path in all of them.
    """
    return str(repository) if repository.is_relative_to("/models") else "/models/repository"
