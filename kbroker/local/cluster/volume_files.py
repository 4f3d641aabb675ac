"""The files of a configMap, secret, downwardAPI or projected volume.

https://kubernetes.io/docs/concepts/storage/volumes/
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass

from kbroker.local.cluster import downward
from kbroker.local.cluster.environment import Find
from kbroker.local.cluster.store import Object

_MODE = 0o644
_KINDS = {
    "configMap": ("configmaps", "configmap", "config"),
    "secret": ("secrets", "secret", "secret"),
}

# Makes a token: (audience or "", seconds until it expires).
MakeToken = Callable[[str, int], str]


class NotMounted(Exception):  # noqa: N818 - a state, not an error of ours
    """A volume cannot be made, or not yet."""


@dataclass(frozen=True, slots=True)
class File:
    """One file of a volume.

    Attributes:
        content: what is in it.
        mode: its permissions.
    """

    content: bytes
    mode: int


# Path within the volume → file.
Files = dict[str, File]


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the files of a pod's volumes come from.

    Attributes:
        pod: the pod as it stands.
        find: looks up secrets and config maps of its namespace.
        make_token: makes a token of its service account.
    """

    pod: Object
    find: Find
    make_token: MakeToken

    def files(self, volume: Object) -> Files | None:
        """The files of a volume; None if it is of a kind that holds none of its own.

        Raises:
            NotMounted: something is not there.
        """
        for kind in _KINDS:
            if volume.get(kind) is not None:
                source = volume[kind]
                return self._keyed(kind, source, source.get("defaultMode"))
        if volume.get("downwardAPI") is not None:
            source = volume["downwardAPI"]
            return self._fields(source, source.get("defaultMode"))
        if volume.get("projected") is not None:
            return self._projected(volume["projected"])
        return None

    def _projected(self, source: Object) -> Files:
        mode = source.get("defaultMode")
        files: Files = {}
        for part in source.get("sources") or []:
            for kind in _KINDS:
                if part.get(kind) is not None:
                    files |= self._keyed(kind, part[kind], mode)
            if part.get("downwardAPI") is not None:
                files |= self._fields(part["downwardAPI"], mode)
            if part.get("serviceAccountToken") is not None:
                files |= self._token(part["serviceAccountToken"], mode)
            for kind in set(part) - set(_KINDS) - {"downwardAPI", "serviceAccountToken"}:
                raise NotMounted(f"a projected {kind} is not supported by the local cluster")
        return files

    def _keyed(self, kind: str, source: Object, default: int | None) -> Files:
        """The keys of a config map or secret, all or those that `items` names."""
        resource, word, short = _KINDS[kind]
        name = source.get("name") or source.get("secretName") or ""
        found = self.find(resource, name)
        optional = bool(source.get("optional"))
        if found is None:
            if optional:
                return {}
            raise NotMounted(f'{word} "{name}" not found')
        values = _values(resource, found)
        mode = _MODE if default is None else default
        if not source.get("items"):
            return {key: File(value, mode) for key, value in values.items()}
        files = {}
        for item in source["items"]:
            if item["key"] in values:
                files[_inside(item["path"])] = File(values[item["key"]], item.get("mode") or mode)
            elif not optional:
                raise NotMounted(f"references non-existent {short} key: {item['key']}")
        return files

    def _fields(self, source: Object, default: int | None) -> Files:
        files = {}
        for item in source.get("items") or []:
            if item.get("fieldRef"):
                named = item["fieldRef"].get("fieldPath", "")
                text = downward.field(named, self.pod)
            else:
                named = (item.get("resourceFieldRef") or {}).get("resource", "")
                text = downward.resource(item.get("resourceFieldRef") or {}, self.pod, None)
            if text is None:
                raise NotMounted(f"{named!r} has no value")
            mode = item.get("mode") or (_MODE if default is None else default)
            files[_inside(item["path"])] = File(text.encode(), mode)
        return files

    def _token(self, source: Object, default: int | None) -> Files:
        token = self.make_token(
            source.get("audience") or "", int(source.get("expirationSeconds") or 3600)
        )
        mode = 0o600 if default is None else default
        return {_inside(source["path"]): File(token.encode(), mode)}


def _values(resource: str, found: Object) -> dict[str, bytes]:
    data, encoded = found.get("data") or {}, found.get("binaryData") or {}
    if resource == "secrets":
        data, encoded = {}, data
    values = {key: str(value).encode() for key, value in data.items()}
    return values | {key: base64.b64decode(value) for key, value in encoded.items()}


def _inside(path: str) -> str:
    """A path that stays within its volume.

    Raises:
        NotMounted: it does not.
    """
    if path.startswith("/") or ".." in path.split("/"):
        raise NotMounted(f"the path {path!r} leads out of the volume")
    return path
