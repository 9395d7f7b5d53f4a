"""Encodes images and audio for GGUF models, with llama.cpp's multimodal library and a projector file."""
