"""`python -m frontend.launch`: start Triton and the frontend, keep them going, stop them together."""

import signal
import sys

from frontend.settings import load_settings
from trident.launch.preflight import LaunchError
from trident.launch.supervisor import Supervisor


def main() -> int:
    """Run until stopped; return the exit code."""
    settings = load_settings(sys.argv[1:])
    supervisor = Supervisor(settings)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: supervisor.request_stop())
    try:
        supervisor.run()
    except LaunchError as error:
        print(f"\ntrident: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
