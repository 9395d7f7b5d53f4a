"""How every backend opens a network in ONNX."""

import os
from pathlib import Path

import onnxruntime

_PROVIDERS = {"CPU": "CPUExecutionProvider", "CUDA": "CUDAExecutionProvider"}


def open_session(path: Path, device: str, threads: int) -> onnxruntime.InferenceSession:
    """Return a session on CPU or CUDA, each run with so many threads; 0: as many as there are cores."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
    # Its threads wait for work busily, but only within a run: the rest of the machine has work to do too.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(path, options, providers=[_PROVIDERS[device.upper()]])
