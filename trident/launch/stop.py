"""`python -m frontend.launch.stop`: stop the Trident that runs on this port, by its PID file."""

import contextlib
import sys

import psutil

from frontend.settings import load_settings

_PATIENCE_SECONDS = 20


def main() -> int:
    """Stop it and wait until it is gone; return the exit code."""
    settings = load_settings(sys.argv[1:])
    try:
        process = psutil.Process(int(settings.pid_file.read_text(encoding="utf-8")))
        running = "trident.launch" in " ".join(process.cmdline())
    except (FileNotFoundError, ValueError, psutil.Error):
        running = False
    if not running:
        print(f"No Trident runs on port {settings.port}")
        return 0
    print(f"Stopping Trident on port {settings.port} (process {process.pid})")
    with contextlib.suppress(psutil.NoSuchProcess):
        process.terminate()
        try:
            process.wait(_PATIENCE_SECONDS)
        except psutil.TimeoutExpired:
            print(f"It is still there after {_PATIENCE_SECONDS} s: kill -9 {process.pid} ends it", file=sys.stderr)
            return 1
    print("Stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
