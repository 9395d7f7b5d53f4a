"""Fills the model repository: fetches published weights, converts them, writes Triton's configuration."""

import sys

sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # it would report each start to the internet
