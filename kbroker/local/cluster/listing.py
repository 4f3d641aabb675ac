"""Lists: selected, in order, in pages that all show one version.

https://kubernetes.io/docs/reference/using-api/api-concepts/#retrieving-large-results-sets-in-chunks
"""

from __future__ import annotations

import base64

import orjson

from kbroker.local.cluster.discovery import RESOURCES
from kbroker.local.cluster.failure import Failure, expired, too_new
from kbroker.local.cluster.request import Call
from kbroker.local.cluster.selectors import matcher
from kbroker.local.cluster.store import Object, Store, Stored
from kbroker.local.cluster.table import table


def selected(store: Store, call: Call) -> list[Stored]:
    """What the call's selectors choose, ordered by namespace and name.

    Raises:
        Failure: 400, a selector cannot be read.
    """
    fields = call.query.get("fieldSelector", "")
    matches = matcher(call.query.get("labelSelector", ""), fields)
    found = [
        stored
        for stored in store.all(call.resource, call.namespace)
        if matches is None or matches(stored.object)
    ]
    return sorted(found, key=_place)


def _place(stored: Stored) -> tuple[str, str]:
    metadata = stored.object["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


def page(store: Store, call: Call) -> bytes:
    """One page of a list as JSON, as a Table if the client wants one.

    Raises:
        Failure: 400, the query cannot be read; 410, the list or the version is gone; 504, the
            version is not there yet.
    """
    limit = call.number("limit") or 0
    token = call.query.get("continue")
    if token:
        number, version, start = _read_token(token)
        items = store.kept(number, version).items
    else:
        _check_version(store, call)
        number, version, start = 0, store.version, 0
        items = selected(store, call)
        if limit and len(items) > limit:
            number = store.keep(items)
    end = start + limit if limit else len(items)
    metadata: Object = {"resourceVersion": str(version)}
    if end < len(items):
        metadata["continue"] = _token(number, version, end)
        metadata["remainingItemCount"] = len(items) - end
    shown = items[start:end]
    if call.tabular:
        return orjson.dumps(table(call.resource, shown, metadata, header=True))
    kind = RESOURCES[call.resource][0]
    head = orjson.dumps({"kind": f"{kind}List", "apiVersion": "v1", "metadata": metadata})
    return head[:-1] + b',"items":[' + b",".join(stored.raw for stored in shown) + b"]}"


def _check_version(store: Store, call: Call) -> None:
    wanted = call.number("resourceVersion") or 0
    if wanted > store.version:
        raise too_new(wanted, store.version)
    if call.query.get("resourceVersionMatch") == "Exact" and wanted < store.version:
        raise expired(wanted, store.version)


def _token(number: int, version: int, start: int) -> str:
    return base64.urlsafe_b64encode(orjson.dumps([number, version, start])).decode()


def _read_token(token: str) -> tuple[int, int, int]:
    try:
        number, version, start = orjson.loads(base64.urlsafe_b64decode(token))
        return int(number), int(version), int(start)
    except (ValueError, TypeError) as error:
        raise Failure(400, "continue key is not valid") from error
