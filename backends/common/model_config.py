"""What every backend does first: has its log go to Triton's, and reads the configuration of its model."""

import json
import logging
import sys
from pathlib import Path


def load_model_config(args: dict[str, str]) -> tuple[Path, dict[str, str]]:
    """Return the folder of the model's version and its parameters, from the arguments of Triton's `initialize`."""
    logging.basicConfig(level=logging.INFO, format=f"{args['model_name']}: %(message)s", stream=sys.stderr)
    config = json.loads(args["model_config"])
    parameters = {key: value["string_value"] for key, value in config["parameters"].items()}
    return Path(args["model_repository"]) / args["model_version"], parameters
