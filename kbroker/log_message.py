"""What is asked about a pod's log, and what is answered: the values on the queue of log requests.

The log itself is passed on as it is; it shows in no repr.
"""

from __future__ import annotations

import re
import secrets
from typing import Any, ClassVar

import orjson

from kbroker.errors import MessageError
from kbroker.event import PodState
from kbroker.schema import integer, reading, string
from kbroker.value import Value

SCHEMA = 1
MOST_LINES = 10_000
MOST_BYTES = 1_000_000  # of a log's text

_LATEST = 2**53 - 1
_REPLY = re.compile(r"[0-9a-f]{32}")


def reply_name() -> str:
    """A new name that nobody guesses for where an answer goes."""
    return secrets.token_hex(16)


class LogRequest(Value, frozen=True):
    """Tell the end of one pod's log, and what is known of the pod.

    Attributes:
        deployment: whose pod; compared with the pod's before anything is told of it.
        cluster: name of the cluster whose launchers may take it.
        namespace: the pod's namespace.
        pod: the pod's name.
        uid: the pod's uid; another pod of that name is not told of. None for any.
        lines: how many last lines, from 1 to `MOST_LINES`.
        reply: where the answer goes, see `reply_name`.
        until: when nobody waits for it any more, ms by Redis' clock.

    Raises:
        ValueError: `lines` is out of bounds, or `reply` is no such name.
    """

    deployment: str
    cluster: str
    namespace: str
    pod: str
    uid: str | None
    lines: int
    reply: str
    until: int

    def __post_init__(self) -> None:
        if not 1 <= self.lines <= MOST_LINES:
            raise ValueError(f"lines must be from 1 to {MOST_LINES}")
        if not _REPLY.fullmatch(self.reply):
            raise ValueError("reply must be 32 hex digits")

    def encode(self) -> bytes:
        """JSON, as it stands in the queue."""
        return orjson.dumps(
            {
                "v": SCHEMA,
                "deployment": self.deployment,
                "cluster": self.cluster,
                "namespace": self.namespace,
                "pod": self.pod,
                "uid": self.uid,
                "lines": self.lines,
                "reply": self.reply,
                "until": self.until,
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> LogRequest:
        """Read what `encode` gave.

        Raises:
            NewerSchemaError: a newer kbroker wrote it.
            MessageError: it is not a log request.
        """
        with reading("log request", _json("log request", data), SCHEMA) as body:
            return cls(
                deployment=string(body, "deployment"),
                cluster=string(body, "cluster"),
                namespace=string(body, "namespace"),
                pod=string(body, "pod"),
                uid=None if body.get("uid") is None else string(body, "uid"),
                lines=integer(body, "lines", 1, MOST_LINES),
                reply=string(body, "reply"),
                until=integer(body, "until", 0, _LATEST),
            )


class LogAnswer(Value, frozen=True):
    """The end of a pod's log, or why there is none.

    Attributes:
        exists: whether there is such a pod; None where that could not be found out.
        text: the last lines of the container `base`, `MOST_BYTES` at most.
        state: where the pod stands; None without a pod.
        why: why it is in that state, in words; "" where there is nothing to be said.
        events: what Kubernetes reported about the pod, as "reason: message", newest last.
        notes: what else is to be said, in words: why there is no log, or not all of it.
    """

    HIDDEN: ClassVar[frozenset[str]] = frozenset({"text"})

    exists: bool | None = None
    text: str = ""
    state: PodState | None = None
    why: str = ""
    events: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def encode(self) -> bytes:
        """JSON, as it goes back."""
        return orjson.dumps(
            {
                "v": SCHEMA,
                "exists": self.exists,
                "text": self.text,
                "state": self.state,
                "why": self.why,
                "events": self.events,
                "notes": self.notes,
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> LogAnswer:
        """Read what `encode` gave.

        Raises:
            NewerSchemaError: a newer kbroker wrote it.
            MessageError: it is not an answer about a log.
        """
        with reading("log answer", _json("log answer", data), SCHEMA) as body:
            exists, state = body["exists"], body["state"]
            if exists is not None and not isinstance(exists, bool):
                raise TypeError("exists must be true, false or null")
            return cls(
                exists,
                _text(body["text"]),
                None if state is None else PodState(state),
                _text(body["why"]),
                tuple(map(_text, _list(body["events"]))),
                tuple(map(_text, _list(body["notes"]))),
            )


def _json(what: str, data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except ValueError:
        raise MessageError(f"not a {what}: no JSON") from None  # its cause would quote the content


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} instead of a string")
    return value


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{type(value).__name__} instead of a list")
    return value
