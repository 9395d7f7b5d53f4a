"""The clients of Triton, the model registry and the tensors: the only part of the frontend that depends on Triton."""
