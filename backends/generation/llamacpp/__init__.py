"""The llama.cpp engine: its libraries, vocabulary, KV cache, sampling and process."""
