"""Service account keys of Google Cloud: what the configuration names, and how a pod gets one.

Kept under the names of Airflow 1.10: `gcp_service_account_keys` says `name=path,…`, a
task's `gcp_service_account_key` names one. A launcher puts the file into the Secret
`name`; the pod finds it where Google's client libraries look
(https://cloud.google.com/docs/authentication/application-default-credentials#GAC).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from kbroker.errors import ConfigError

FILE = "key.json"
MOUNT_PATH = "/var/secrets/google"
VARIABLE = "GOOGLE_APPLICATION_CREDENTIALS"
_VOLUME = "gcp-service-account-key"
# https://kubernetes.io/docs/concepts/configuration/secret/#restriction-names-data
_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class ServiceAccountKey:
    """One key.

    Attributes:
        name: of the Secret.
        path: of the file, where the launchers run.
    """

    name: str
    path: str


def read_keys(text: str) -> dict[str, ServiceAccountKey]:
    """The keys that `name=path,…` names, by name.

    Raises:
        ConfigError: it is not of that form, or names one twice.
    """
    keys: dict[str, ServiceAccountKey] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, separator, path = (word.strip() for word in part.partition("="))
        if not separator or not path:
            raise ConfigError(f"must be name=path,…; {part!r} is not name=path")
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"{name!r} cannot name a Secret: lower case letters, digits, inner '-' and '.'"
            )
        if name in keys:
            raise ConfigError(f"{name!r} is named twice")
        keys[name] = ServiceAccountKey(name, path)
    return keys


def volume(name: str) -> dict[str, Any]:
    """The pod's volume with the key `name`."""
    return {"name": _VOLUME, "secret": {"secretName": name}}


def volume_mount() -> dict[str, Any]:
    """Where the base container finds that volume."""
    return {"name": _VOLUME, "mountPath": MOUNT_PATH, "readOnly": True}


def variable() -> dict[str, str]:
    """How the base container finds the file."""
    return {"name": VARIABLE, "value": f"{MOUNT_PATH}/{FILE}"}
