"""Follows the settings file while Trident runs: instances can be added, changed and removed without a restart."""

from collections.abc import Callable

import click

from frontend.settings import Settings, settings_path
from frontend.triton.instances_file import write_instances
from trident.launch.preflight import LaunchError, check_gateway


class SettingsFile:
    """The settings file, as the launcher has last read it. `load` reads all settings again."""

    def __init__(self, settings: Settings, load: Callable[[], Settings]):
        self._settings, self._load = settings, load
        self._path = settings_path()
        self._changed_at = self._modified()
        settings.instances_file.unlink(missing_ok=True)

    def check(self) -> str:
        """Apply changed instances. Return what to tell the user, or nothing. Invalid settings change nothing."""
        if (changed_at := self._modified()) == self._changed_at:
            return ""
        self._changed_at = changed_at
        try:
            new = self._load()
        except click.UsageError as error:
            return f"{self._path} has changed, but is not applied: {error.message}"
        if new.instances == self._settings.instances:
            return ""
        if version := self._stored_version(new):
            return f"{self._path} has changed, but version {version} of the configuration applies"
        if self._settings.discover or not new.instances or not self._settings.instances:
            return f"{self._path} has changed: restart Trident to use another Triton"
        write_instances(new, new.instances)
        self._settings = new
        return f"The instances are now {', '.join(each.id for each in new.instances)}"

    def _stored_version(self, settings: Settings) -> int:
        """Return the version of the configuration in the store, which applies instead of the settings, or 0."""
        try:
            return check_gateway(settings)
        except LaunchError:
            return 0

    def _modified(self) -> int:
        try:
            return self._path.stat().st_mtime_ns
        except OSError:
            return 0
