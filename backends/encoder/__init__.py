"""The backend for embedding models and rerankers, which run on onnxruntime."""
