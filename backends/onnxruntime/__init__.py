"""A stand-in for Triton's own onnxruntime backend, where that is missing."""
