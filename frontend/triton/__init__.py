"""The Triton clients, the model registry and the tensor formats. No other part of the frontend depends on Triton."""
