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

    def start(self) -> None:
        """Resolve the name, and follow its changes in a background thread."""
        self._resolve()
        threading.Thread(target=self._follow, name="discovery", daemon=True).start()

    def _follow(self) -> None:
        wait = threading.Event()
        while not wait.wait(_CHECK_SECONDS):
            self._resolve()

    def _resolve(self) -> None:
        try:
            answers = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except OSError as error:
            if not self._found:
                write_instances(self._settings, [])
                print(f"trident: {self._host} cannot be resolved yet ({error.strerror})", flush=True)
            return
        addresses = sorted({str(answer[4][0]) for answer in answers})
        found = [InstanceConfig(TritonAddress(host, self._port, self._port + 1, self._port + 2)) for host in addresses]
        if found != self._found:
            write_instances(self._settings, found)
            self._found = found
            print(f"trident: {self._host} has the Tritons {', '.join(addresses)}", flush=True)
