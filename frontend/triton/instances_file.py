"""The instances that are configured now: those of the settings, or a file that the launcher writes when they change."""

import json
import logging
import threading
from collections.abc import Callable, Sequence

from frontend.instance_config import InstanceConfig, parse_instance
from frontend.settings import Settings

log = logging.getLogger(__name__)

_CHECK_SECONDS = 0.5


def write_instances(settings: Settings, instances: Sequence[InstanceConfig]) -> None:
    """Make the frontend's processes use these instances."""
    new = settings.instances_file.with_suffix(".new")
    new.write_text(json.dumps([each.as_dict() for each in instances]), encoding="utf-8")
    new.replace(settings.instances_file)


def current_instances(settings: Settings) -> Sequence[InstanceConfig]:
    """Return the instances that are configured now."""
    try:
        entries = json.loads(settings.instances_file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return settings.all_instances
    return [parse_instance(entry) for entry in entries]


def discovered_instances(
    settings: Settings, current: Sequence[InstanceConfig], known: Sequence[InstanceConfig]
) -> list[InstanceConfig]:
    """Return the current instances that the launcher has discovered, except known ones."""
    others = {each.id for each in (*settings.instances, *known)}
    return [each for each in current if each.id not in others]


def follow_instances(settings: Settings, on_change: Callable[[Sequence[InstanceConfig]], None]) -> None:
    """Call `on_change` in a background thread when the instances change."""
    seen = 0  # so that a change since the start is noticed

    def follow() -> None:
        nonlocal seen
        wait = threading.Event()
        while not wait.wait(_CHECK_SECONDS):
            if (changed := _changed_at(settings)) != seen:
                seen = changed
                try:
                    on_change(current_instances(settings))
                except Exception:
                    log.exception("the instances could not be changed")

    threading.Thread(target=follow, name="instances", daemon=True).start()


def _changed_at(settings: Settings) -> int:
    try:
        return settings.instances_file.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
