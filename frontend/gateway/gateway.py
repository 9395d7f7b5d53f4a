"""The control of one frontend process: keys, limits and configuration, which follow the store while it runs."""

import logging
import threading
import time
from pathlib import Path

from sqlalchemy.engine import Connection

from frontend import metrics
from frontend.errors import APIError, Conflict, StoreUnavailable
from frontend.gateway.changes import read_changes
from frontend.gateway.configuration import (
    Breakers,
    Configuration,
    configuration_of,
    effective_instances,
    read_configuration,
)
from frontend.gateway.key_records import KeyRecords
from frontend.gateway.keys import LOCAL, ApiKey, KeyRing, Pepper, PepperError
from frontend.gateway.limits.gate import Gate
from frontend.gateway.limits.limit import Limit, Limiter
from frontend.gateway.limits.memory import MemoryLimiter
from frontend.gateway.limits.policy import client_network
from frontend.gateway.startup import NEEDS_REDIS
from frontend.gateway.store.database import Store
from frontend.gateway.store.tables import COMMANDS
from frontend.gateway.usage import UsageCounter
from frontend.gateway.versions import Content, Versions
from frontend.instance_config import InstanceConfig
from frontend.settings import Settings
from frontend.triton.instance import Instance
from frontend.triton.instances_file import current_instances
from frontend.triton.registry import Registry
from frontend.triton.router import Router

log = logging.getLogger(__name__)

_CHECK_SECONDS, _FLUSH_SECONDS, _RENEW_SECONDS = 0.5, 1.0, 15.0
_KEPT_COMMANDS_SECONDS = 30 * 86_400.0
_WRONG_KEYS_PER_MINUTE = 20


class Gateway:
    """Keys, limits and configuration of this process, and the operations that change them for all processes."""

    def __init__(self, settings: Settings, registry: Registry, router: Router):
        self._settings, self._registry, self._router = settings, registry, router
        self.store = Store(settings.store_url)
        self.versions = Versions(self.store)
        self.keys = KeyRing(Pepper(settings.pepper_path))
        self.records = KeyRecords(self.store, self.keys.pepper)
        self.gate = Gate(_limiter(settings))
        self.usage = UsageCounter(self.store)
        self.configuration = configuration_of(settings)
        """The current configuration. While its version is 0, `current` also has changes of the settings file."""
        self.version = 0
        """Its version; 0 if it is that of the settings."""
        self._instances: list[InstanceConfig] | None = None
        self._drained: set[str] = set()
        self._forced: set[str] = set()
        self._revision = 0
        self._is_loaded = False
        self._invalid_version = -1
        self._last_problem = ""
        self._started_at = _modified(settings.local_key_file) or time.time()
        self._lock = threading.Lock()
        self._wrong_keys = MemoryLimiter(max_counters=10_000)
        _add_fixed_keys(self.keys, settings)
        router.limit = self._limit_instance
        self._apply(self.configuration, 0)

    @property
    def newest_version(self) -> int:
        """The newest version in the store, which may be one that this process has skipped as invalid."""
        return max(self.version, self._invalid_version)

    @property
    def is_loaded(self) -> bool:
        """Whether the store was read. Until then, nobody knows which keys are valid."""
        return self._is_loaded

    def load(self) -> None:
        """Read the store. If it does not respond, `start` tries again."""
        self._check()

    def start(self) -> None:
        """Follow the store in the background, write the usage, and keep requests in progress in their limits."""
        threading.Thread(target=self._follow, name="gateway", daemon=True).start()
        threading.Thread(target=self._renew, name="renewal", daemon=True).start()

    def stop(self) -> None:
        """Write what was counted, because the process exits."""
        self._flush()

    def refresh(self) -> None:
        """Apply what has changed in the store. Raises StoreUnavailable."""
        with self._lock:
            if not self.store.exists:
                return self._require_no_keys("its file is missing")
            since = self._revision
            changes = self.store.read(lambda connection: read_changes(connection, since, self.version))
            if changes.revision < since:
                log.error("the store was replaced by an older one; reading it anew")
                changes = self.store.read(lambda connection: read_changes(connection, -1, -1))
                if not any(row.digest for row in changes.keys):
                    self._require_no_keys("it was replaced by one without keys")
                self._check_pepper(changes.pepper_check)
                self.keys.replace(changes.keys)
            else:
                if not self._is_loaded and not changes.keys and self._settings.keys_file.exists():
                    self._require_no_keys("it was replaced by one without keys")
                self._check_pepper(changes.pepper_check)
                self.keys.apply(changes.keys)
            for command in changes.commands:
                if command.at >= self._started_at:
                    self._carry_out(command.kind, command.target)
            self._is_loaded = True
            self._note_keys()
            self._follow_version(changes.version, changes.content)
            self._revision = changes.revision  # last, so that a change that could not be applied is tried again
            return None

    def current(self) -> Configuration:
        """Return the current configuration."""
        return self.configuration if self.version else self.of_settings()

    def of_settings(self) -> Configuration:
        """Return the configuration of the settings, with changes of the instances in the settings file."""
        return configuration_of(self._settings, current_instances(self._settings))

    def audit(self, action: str, target: str, actor: str) -> None:
        """Record an operation that changes nothing in the store. Raises StoreUnavailable."""
        self.store.write(lambda connection, revision: None, actor=actor, action=action, target=target)

    def change(self, base: int, content: Content, actor: str, action: str, comment: str = "") -> int:
        """Make a new version of the configuration from version `base`, and return its number.

        Raises InvalidRequest, Conflict or StoreUnavailable; then nothing has changed.
        """
        configuration = read_configuration(content)
        if configuration.has_limits:
            self.require_shared_limits()
        version = self.versions.add(base, configuration.as_dict(), actor, action, comment)
        self.refresh()
        return version

    def require_shared_limits(self) -> None:
        """Raise Conflict if limits would be counted by each process alone."""
        if self._settings.workers > 1 and not self._settings.redis_url:
            raise Conflict(NEEDS_REDIS, code="redis_required")

    def command(self, kind: str, target: str, actor: str) -> None:
        """Make all processes carry out a command. Raises StoreUnavailable."""

        def add(connection: Connection, revision: int) -> None:
            now = time.time()
            connection.execute(COMMANDS.delete().where(COMMANDS.c.at < now - _KEPT_COMMANDS_SECONDS))
            connection.execute(COMMANDS.insert().values(at=now, kind=kind, target=target, revision=revision))

        self.store.write(add, actor=actor, action=kind, target=target)
        self.refresh()

    def admits_wrong_key(self, address: str) -> bool:
        """Count a wrong key from an address. Return False if there were too many."""
        limit = Limit(
            client_network(address), "client", "requests", "bucket", _WRONG_KEYS_PER_MINUTE, 60 / _WRONG_KEYS_PER_MINUTE
        )
        return self._wrong_keys.admit([limit], "").refused is None

    def _require_no_keys(self, reason: str) -> None:
        """Accept a store without keys, unless there were some: then this would open the server to everybody."""
        has_pepper = self._settings.pepper_file is None and self.keys.pepper.exists
        if not len(self.keys) and not has_pepper and not self._settings.keys_file.exists():
            self._is_loaded = True
            return
        raise StoreUnavailable(f"There were API keys, but the store has none: {reason}")

    def _check_pepper(self, check: bytes | None) -> None:
        """Raise StoreUnavailable if the stored keys cannot be found. Without any, nobody may then be let in."""
        try:
            self.keys.check(check)
        except PepperError as error:
            if not len(self.keys):
                self._is_loaded = False
            raise StoreUnavailable(f"The API keys cannot be used: {error}") from error

    def _note_keys(self) -> None:
        """Leave a note for later processes of this run, so that they do not take a lost store for one without keys."""
        if not len(self.keys):
            self._settings.keys_file.unlink(missing_ok=True)
        elif not self._settings.keys_file.exists():
            self._settings.keys_file.parent.mkdir(parents=True, exist_ok=True)
            self._settings.keys_file.touch()

    def _follow_version(self, version: int, content: Content) -> None:
        """Use another version of the configuration. One that is invalid here is skipped, and reported once."""
        if version in (self.version, self._invalid_version):
            return
        try:
            configuration = read_configuration(content) if version else self.of_settings()
        except ValueError as error:
            self._invalid_version = version
            log.error(
                "version %d of the configuration is not valid for this Trident, so it is skipped: %s", version, error
            )
            return
        self._apply(configuration, version)

    def _apply(self, configuration: Configuration, version: int) -> None:
        """Use a configuration from now on. If this fails, it is tried again at the next check."""
        self.gate.configure(configuration)
        self._registry.set_names(configuration.aliases, configuration.defaultModels)
        self._router.set_strategies(configuration.strategies())
        breakers = Breakers(configuration, self._settings)
        self._registry.set_up_instances(lambda instance: self._set_up(instance, breakers))
        self._router.follows_file = version == 0
        self._router.fixed = [each.config() for each in configuration.instances]
        instances = effective_instances(self._settings, configuration)
        if (version or self.version) and instances != self._instances:
            self._instances = None
            self._router.configure(instances)
            self._instances = instances
            # Instances that were removed and are back have lost their state.
            self._registry.set_up_instances(lambda instance: self._set_up(instance, breakers))
        if configuration.has_limits and self._settings.workers > 1 and not self._settings.redis_url:
            log.error("%s", NEEDS_REDIS)
        self.configuration, self.version, self._invalid_version = configuration, version, -1
        metrics.set_config_version(version)
        if version:
            log.warning("using version %d of the configuration", version)

    def _set_up(self, instance: Instance, breakers: Breakers) -> None:
        """Configure an instance that is new, or whose configuration has changed."""
        instance.breaker.configure(*breakers.of(instance.service, instance.id))
        if instance.id in self._forced:
            instance.breaker.force_open()
        if instance.id in self._drained:
            instance.is_draining = True

    def _limit_instance(self, service: str, instance: str, lease: str) -> APIError | None:
        return self.gate.admit_to_instance(service, instance, lease)

    def _carry_out(self, kind: str, target: str) -> None:
        """Carry out a command, also for an instance that appears later."""
        name, _, action = kind.partition(".")
        targets = self._forced if name == "breaker" else self._drained
        is_on = action in ("force-open", "drain")
        (targets.add if is_on else targets.discard)(target)
        for instance in self._registry.instances():
            if instance.id != target:
                continue
            if name == "breaker":
                (instance.breaker.force_open if is_on else instance.breaker.reset)()
            else:
                instance.is_draining = is_on
        self._router.notify()

    def _follow(self) -> None:
        flushed = time.monotonic()
        pause = threading.Event()
        while not pause.wait(_CHECK_SECONDS):
            self._check()
            if time.monotonic() - flushed >= _FLUSH_SECONDS:
                flushed = time.monotonic()
                self._flush()
                self._check_limiter()

    def _flush(self) -> None:
        if not self._is_loaded:
            return  # it might make a new store in place of one that is missing
        try:
            self.usage.flush()
        except Exception:
            log.exception("the usage could not be written")

    def _check_limiter(self) -> None:
        try:
            self.gate.limiter.check()
        except Exception:
            log.exception("the limits could not be checked")

    def _renew(self) -> None:
        pause = threading.Event()
        while not pause.wait(_RENEW_SECONDS):
            try:
                self.gate.renew()
            except Exception:
                log.exception("requests in progress could not be renewed")

    def _check(self) -> None:
        try:
            self.refresh()
        except StoreUnavailable as error:
            if self._last_problem != str(error):
                log.error("the store cannot be followed: %s", error)
            self._last_problem = str(error)
            metrics.set_store_up(False)
        except Exception:
            log.exception("the configuration in the store could not be applied")
        else:
            self._last_problem = ""
            metrics.set_store_up(True)


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _limiter(settings: Settings) -> Limiter:
    if not settings.redis_url:
        return MemoryLimiter()
    from frontend.gateway.limits.redis_limiter import RedisLimiter  # 0.1 s, and only needed here

    return RedisLimiter(settings.redis_url, settings.workers)


def _add_fixed_keys(keys: KeyRing, settings: Settings) -> None:
    """Add the keys that are in files instead of the store."""
    if settings.admin_key_file:
        text = settings.admin_key_file.read_text(encoding="utf-8").strip()
        keys.add_fixed(text, ApiKey("admin-key-file", "admin"))
    if settings.local_key_file.exists():
        keys.add_fixed(settings.local_key_file.read_text(encoding="utf-8").strip(), LOCAL)
