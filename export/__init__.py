"""The export, which downloads published weights, converts them and writes Triton's configuration."""

import sys

sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # OpenVINO would send telemetry at every start
