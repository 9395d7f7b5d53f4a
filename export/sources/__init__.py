"""Where models come from: the Hugging Face hub, ModelScope, URLs and local folders."""
