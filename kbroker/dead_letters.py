"""The dead stream: messages that could not be processed, and what may become of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import redis
from redis.exceptions import ResponseError

from kbroker.errors import KbrokerError
from kbroker.keys import RedisKeys
from kbroker.message import DeleteMessage, LaunchMessage, SecretMessage
from kbroker.record_scripts import launch_item, removal_item
from kbroker.redis_client import Call, availability, script

Message = LaunchMessage | DeleteMessage | SecretMessage

# What a task's author or a token wrote is shown to nobody who did not ask for it.
_PRIVATE = ("command", "config", "traceparent", "workload")

REFUSED = {
    "gone": "it is not in the dead stream any more",
    "garbage": "it is no message that this kbroker can read: purge it",
    "absent": "its task is not recorded any more: run the task again",
    "withdrawn": "its task was cancelled or withdrawn: run the task again",
    "final": "its task has ended: run the task again",
    "attempt": "a later attempt of its task was published: leave it to that one",
    "launched": "its pod exists already: nothing is left to launch",
    "dead": "its executor was told that the task failed: run the task again",
    "waiting": "the same launch is on its queue already",
    "window": "a launcher may still be creating its pod: try again within a minute",
}


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One dead message.

    Attributes:
        id: stream id in the dead stream.
        queue: where it came from.
        reason: why it is dead.
        raw: the message as it stood in the queue.
        message: what it says; None where it cannot be read.
    """

    id: str
    queue: str
    reason: str
    raw: bytes = field(repr=False)
    message: Message | None = field(repr=False)

    @property
    def at(self) -> int:
        """When it was buried, ms by Redis' clock."""
        return int(self.id.partition("-")[0])

    @property
    def kind(self) -> str:
        """launch, delete, secret or unreadable."""
        match self.message:
            case LaunchMessage():
                return "launch"
            case DeleteMessage():
                return "delete"
            case SecretMessage():
                return "secret"
        return "unreadable"

    @property
    def about(self) -> str:
        """Task, pod or Secret that it is about; "" where it cannot be read."""
        match self.message:
            case LaunchMessage():
                return f"{self.message.attempt.launch.key} attempt {self.message.attempt.number}"
            case DeleteMessage():
                return f"{self.message.namespace}/{self.message.pod}"
            case SecretMessage():
                return f"{self.message.namespace}/{self.message.name}"
        return ""

    def content(self, *, private: bool = False) -> Any:
        """The message as JSON-ready values; commands and the like only if `private`."""
        if self.message is None:
            if private:
                return self.raw.decode(errors="replace")
            return f"{len(self.raw)} bytes that cannot be read"
        fields = self.message.as_dict()
        return {n: "***" if n in _PRIVATE and v and not private else v for n, v in fields.items()}


def letters(client: redis.Redis, keys: RedisKeys, limit: int = 10_000) -> list[DeadLetter]:
    """The dead messages, the oldest first; the newest `limit` of them.

    Raises:
        BrokerUnavailableError: Redis is away.
    """
    with availability():
        entries: Any = client.xrevrange(keys.dead, count=limit)
    return [_letter(*entry) for entry in reversed(entries)]


def letter(client: redis.Redis, keys: RedisKeys, name: str) -> DeadLetter | None:
    """The dead message of this id; None if there is none.

    Raises:
        BrokerUnavailableError: Redis is away.
    """
    with availability():
        try:
            entries: Any = client.xrange(keys.dead, name, name)
        except ResponseError:
            return None  # not a stream id
    return _letter(*entries[0]) if len(entries) == 1 else None


def replay(keys: RedisKeys, dead: DeadLetter, default_priority: str) -> Call[str] | None:
    """Put it back on its queue; None for what cannot be read.

    Args:
        keys: names.
        dead: the message.
        default_priority: queue of a launch that was parked, and does not say which it came from.

    The reply is "ok" or one of `REFUSED`.
    """
    message, record, attempt, item = dead.message, keys.dead, "", ""
    match message:
        case LaunchMessage():
            queues = keys.launch_queue(message.cluster, "")
            known = dead.queue.startswith(queues)
            priority = dead.queue.removeprefix(queues) if known else default_priority
            queue = f"{queues}{priority}"
            actor, name = f"launch.{priority}", message.attempt.digest
            record = keys.task(message.attempt.launch.digest)
            attempt, item = str(message.attempt.number), launch_item(message.attempt)
        case DeleteMessage():
            queue = keys.delete_queue(message.cluster)
            actor, name = "delete", removal_item(message)
        case SecretMessage():
            queue = keys.secrets_queue(message.cluster)
            actor, name = "secret", f"{message.namespace}/{message.name}"
        case None:
            return None
    entry = orjson.dumps(
        {
            "queue_name": queue.removeprefix(keys.prefix),
            "actor_name": actor,
            "args": [message.as_dict()],
            "kwargs": {},
            "options": {},
            "message_id": name,
            "message_timestamp": dead.at,
        }
    )
    return Call(
        script("replay"),
        (keys.dead, record, queue),
        (keys.prefix, dead.id, entry, attempt, item),
        lambda reply: str(reply[0].decode()),
    )


def purge(client: redis.Redis, keys: RedisKeys, ids: Sequence[str]) -> int:
    """Forget these; how many there were.

    Raises:
        BrokerUnavailableError: Redis is away.
    """
    if not ids:
        return 0
    with availability():
        return int(client.xdel(keys.dead, *ids))


def _letter(name: bytes, fields: dict[bytes, bytes]) -> DeadLetter:
    raw = fields.get(b"message", b"")
    queue = fields.get(b"queue", b"").decode(errors="replace")
    reason = fields.get(b"reason", b"").decode(errors="replace")
    return DeadLetter(name.decode(), queue, reason, raw, _read(raw))


def _read(raw: bytes) -> Message | None:
    """From a queue it stands in an envelope, from the parked set it does not."""
    try:
        body = orjson.loads(raw)
        if isinstance(body, dict) and "actor_name" in body:
            body = body["args"][0]
    except (ValueError, LookupError, TypeError):
        return None
    for kind in (LaunchMessage, DeleteMessage, SecretMessage):
        try:
            return kind.from_dict(body)
        except KbrokerError:
            continue
    return None
