"""The configuration: defaults, then a TOML file, then the environment, then arguments."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from kbroker.errors import ConfigError
from kbroker.service_account_key import read_keys
from kbroker.settings import (
    SECTIONS,
    BrokerSettings,
    CoreSettings,
    KubernetesSettings,
    LauncherSettings,
    WatcherSettings,
    bounds_of,
    field_bounds,
)

ENV_PREFIX = "KBROKER__"
ENV_FILE = "KBROKER_CONFIG"

# Each is part of a queue's name, and of a list in an environment variable.
_PRIORITY = r"[A-Za-z0-9_-]+"

_TRUE = {"true", "yes", "on", "1"}
_FALSE = {"false", "no", "off", "0"}
_TYPE_NAMES = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


@dataclass(frozen=True)
class KubeConfig:
    """All settings, each with where it came from.

    Attributes:
        core: the executor.
        broker: Redis and the queues.
        kubernetes: the cluster and the pods.
        launcher: launcher processes.
        watcher: the watcher.
        core_section: name of the executor's section.
        kubernetes_section: name of the cluster's section.
        sources: "section.key" → file, environment variable or argument it came from;
            defaults are left out.
    """

    core: CoreSettings = field(default_factory=CoreSettings)
    broker: BrokerSettings = field(default_factory=BrokerSettings)
    kubernetes: KubernetesSettings = field(default_factory=KubernetesSettings)
    launcher: LauncherSettings = field(default_factory=LauncherSettings)
    watcher: WatcherSettings = field(default_factory=WatcherSettings)
    core_section: str = "core"
    kubernetes_section: str = "kubernetes"
    sources: Mapping[str, str] = field(
        default_factory=lambda: types.MappingProxyType({}), compare=False, repr=False
    )

    def __post_init__(self) -> None:
        self._validate()

    @classmethod
    def load(
        cls,
        path: str | Path | None = None,
        env: Mapping[str, str] | None = None,
        overrides: Mapping[str, Any] | None = None,
        override_source: Callable[[str], str] = "argument {}".format,
    ) -> KubeConfig:
        """Read the configuration.

        Args:
            path: a TOML file; by default the one that `KBROKER_CONFIG` names, if any.
            env: the environment, `os.environ` by default. `KBROKER__SECTION__KEY`
                overrides the file.
            overrides: "section.key" → value, stronger than all else; a text is read
                as in the environment.
            override_source: "section.key" → where an override came from, for the user.

        Raises:
            ConfigError: an unknown section or key, a wrong type, a value that is not
                allowed, a contradiction, or an unreadable file.
        """
        env = os.environ if env is None else env
        path = path or env.get(ENV_FILE) or None
        values: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
        sources: dict[str, str] = {}
        arguments = [(name, v, override_source(name)) for name, v in (overrides or {}).items()]
        for name, value, source in [
            *(() if path is None else _from_file(Path(path))),
            *((n, Text(v), s) for n, v, s in _from_env(env)),
            *((n, Text(v) if isinstance(v, str) else v, s) for n, v, s in arguments),
        ]:
            section, key = _known(name, source)
            values[section][key] = checked(SECTIONS[section], key, value, f"{source}: {name}")
            sources[name] = source
        sections = {section: SECTIONS[section](**values[section]) for section in SECTIONS}
        return cls(**sections, sources=types.MappingProxyType(sources))

    @classmethod
    def from_values(cls, **values: Any) -> KubeConfig:
        """Defaults and these values alone: `from_values(**{"core.parallelism": 4})`.

        Raises:
            ConfigError: as `load`.
        """
        return cls.load(env={}, overrides=values)

    def source(self, name: str) -> str:
        """Where the value of "section.key" came from: a file, variable, argument or "default"."""
        return self.sources.get(name, "default")

    def values(self) -> dict[str, Any]:
        """Every setting: "section.key" → value."""
        return {
            f"{section}.{f.name}": getattr(getattr(self, section), f.name)
            for section in SECTIONS
            for f in fields(SECTIONS[section])
        }

    def as_env(self) -> dict[str, str]:
        """The environment variables that give a child process this configuration."""
        defaults = KubeConfig().values()
        return {
            ENV_PREFIX + name.upper().replace(".", "__"): as_text(value)
            for name, value in self.values().items()
            if value != defaults[name]
        }

    def _validate(self) -> None:
        """Refuse values that contradict each other.

        Raises:
            ConfigError: which ones, and what is allowed.
        """
        broker, launcher = self.broker, self.launcher
        names = broker.priorities
        unnamed = any(not re.fullmatch(_PRIORITY, name) for name in names)
        if not names or unnamed or len(set(names)) != len(names):
            raise self._error(
                "broker.priorities", "must be names (letters, digits, '-', '_'), each once"
            )
        if broker.default_priority not in broker.priorities:
            allowed = ", ".join(broker.priorities)
            raise self._error(
                "broker.default_priority", f"must be one of broker.priorities: {allowed}"
            )
        if launcher.park_base > launcher.park_max:
            raise self._error(
                "launcher.park_base", f"must not exceed launcher.park_max ({launcher.park_max:g} s)"
            )
        if self.watcher.backoff_base > self.watcher.backoff_max:
            raise self._error(
                "watcher.backoff_base",
                f"must not exceed watcher.backoff_max ({self.watcher.backoff_max:g} s)",
            )

        try:
            read_keys(self.kubernetes.gcp_service_account_keys)
        except ConfigError as error:
            raise self._error("kubernetes.gcp_service_account_keys", str(error)) from None

    def _error(self, name: str, problem: str) -> ConfigError:
        value = self.values()[name]
        return ConfigError(f"{self.source(name)}: {name} = {_shown(value)}: {problem}")


class Text(str):
    """A value that has no type of its own yet: it comes from the environment or a command line."""

    __slots__ = ()


def checked(settings: type[Any], key: str, value: Any, label: str) -> Any:
    """A value as the field of a class of settings wants it.

    Args:
        settings: a dataclass whose fields were made by `setting`.
        key: the field.
        value: of its type; a `Text` is read as one of the environment.
        label: names the setting and where the value came from, for the user.

    Raises:
        ConfigError: a wrong type, or a value that is not allowed.
    """
    wanted = typing.get_type_hints(settings)[key]
    try:
        text = isinstance(value, Text)
        converted = _from_text(value, wanted) if text else _converted(value, wanted)
    except ValueError:
        raise ConfigError(f"{label} = {_shown(value)}: must be {_type_name(wanted)}") from None
    problem = field_bounds(settings)[key].problem(converted)
    if problem:
        raise ConfigError(f"{label} = {_shown(value)}: {problem}")
    return converted


def as_text(value: Any) -> str:
    """A value as the environment would say it."""
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _known(name: str, source: str) -> tuple[str, str]:
    section, _, key = name.partition(".")
    if section not in SECTIONS:
        raise ConfigError(
            f"{source}: there is no section [{section}]{_nearest(section, SECTIONS)}; "
            f"sections are {', '.join(SECTIONS)}"
        )
    keys = bounds_of(section)
    if key not in keys:
        raise ConfigError(f"{source}: [{section}] has no key {key!r}{_nearest(key, keys)}")
    return section, key


def _nearest(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _from_file(path: Path) -> list[tuple[str, Any, str]]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not TOML: {error}") from None
    given = []
    for section, content in document.items():
        if not isinstance(content, dict):
            raise ConfigError(f"{path}: {section!r} stands outside a section, such as [core]")
        if section not in SECTIONS:
            _known(f"{section}.", str(path))
        given += [(f"{section}.{key}", value, str(path)) for key, value in content.items()]
    return given


def _from_env(env: Mapping[str, str]) -> list[tuple[str, Any, str]]:
    given: list[tuple[str, Any, str]] = []
    for variable, value in env.items():
        if variable.startswith(ENV_PREFIX):
            name = variable.removeprefix(ENV_PREFIX).lower().replace("__", ".", 1)
            given.append((name, value, f"environment variable {variable}"))
    return given


def _converted(value: Any, wanted: Any) -> Any:
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if typing.get_origin(wanted) is tuple:
        if isinstance(value, list | tuple) and all(isinstance(part, str) for part in value):
            return tuple(value)
    elif isinstance(value, wanted) and not (wanted is int and isinstance(value, bool)):
        return value
    raise ValueError(value)


def _from_text(text: str, wanted: Any) -> Any:
    if wanted is bool:
        if text.lower() in _TRUE | _FALSE:
            return text.lower() in _TRUE
        raise ValueError(text)
    if typing.get_origin(wanted) is tuple:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    return wanted(str(text))


def _type_name(wanted: Any) -> str:
    return _TYPE_NAMES.get(wanted, "a list of texts")


def _shown(value: Any) -> str:
    return repr(list(value) if isinstance(value, tuple) else value)
