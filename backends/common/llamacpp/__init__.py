"""llama.cpp: its libraries, GGUF models and projectors, for the backends that run such files."""
