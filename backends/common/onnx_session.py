"""Opens ONNX networks in onnxruntime."""

import os
from pathlib import Path

import onnxruntime

_PROVIDERS = {"CPU": "CPUExecutionProvider", "CUDA": "CUDAExecutionProvider"}


def open_session(path: Path, device: str, threads: int) -> onnxruntime.InferenceSession:
    """Return a session on CPU or CUDA that uses `threads` threads per run (0: one per available core)."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
    # Between runs, the session's threads sleep instead of busy-waiting, so that other work gets the CPU.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(path, options, providers=[_PROVIDERS[device.upper()]])
