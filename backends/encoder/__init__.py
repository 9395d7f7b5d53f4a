"""Embedding and rerank on onnxruntime."""
