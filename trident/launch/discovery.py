"""Finds the Tritons behind a DNS name, such as that of a headless service in Kubernetes, and follows its changes."""

import socket
import threading

from frontend.instance_config import InstanceConfig, TritonAddress
from frontend.settings import Settings
from frontend.triton.instances_file import write_instances

_CHECK_SECONDS = 2.0


class Discovery:
    """The instances behind `settings.discover`. A name that cannot be resolved leaves them as they are."""

    def __init__(self, settings: Settings):
        self._settings = settings
        self._host, _, port = str(settings.discover).rpartition(":")
        self._port = int(port)
        self._found: list[InstanceConfig] = []
        self._failure = ""

    def start(self) -> None:
        """Resolve the name, and follow its changes in a background thread."""
        write_instances(self._settings, self._settings.instances)
        self.check()
        threading.Thread(target=self._follow, name="discovery", daemon=True).start()

    def _follow(self) -> None:
        wait = threading.Event()
        while not wait.wait(_CHECK_SECONDS):
            self.check()

    def check(self) -> None:
        """Resolve the name, and use its addresses from now on. A failure is printed once."""
        try:
            found = self._resolve()
            if found != self._found:
                write_instances(self._settings, [*self._settings.instances, *found])
        except (OSError, UnicodeError) as error:  # UnicodeError: the name cannot be one in DNS
            if str(error) != self._failure:
                self._failure = str(error)
                print(f"trident: the Tritons of {self._host} cannot be found: {error}", flush=True)
            return
        self._failure = ""
        if found != self._found:
            self._found = found
            print(f"trident: {self._host} has the Tritons {', '.join(each.id[1:] for each in found)}", flush=True)

    def _resolve(self) -> list[InstanceConfig]:
        """Return an instance for each address. Raises OSError."""
        answers = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        # Each Triton has both an IPv4 and an IPv6 address, if any has; Triton listens on the former.
        kinds = {answer[0] for answer in answers}
        kind = socket.AF_INET if socket.AF_INET in kinds else socket.AF_INET6
        addresses = sorted({str(answer[4][0]) for answer in answers if answer[0] == kind})
        return [InstanceConfig(TritonAddress(host, self._port, self._port + 1, self._port + 2)) for host in addresses]
