"""llama.cpp's libraries, and the vocabulary of a GGUF file, for the backends that run such files."""
