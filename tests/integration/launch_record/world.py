"""Everybody who talks to the launch record, one method each, against one Redis."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import orjson
import redis

from kbroker.event import Cause, PodEvent, PodState
from kbroker.keys import LAUNCHERS_GROUP, RedisKeys
from kbroker.launch_reply import Cancelled, Published
from kbroker.message import DeleteMessage, LaunchMessage
from kbroker.record_scripts import launch_item
from kbroker.redis_client import Call, run
from kbroker.task import Attempt, Launch, TaskKey
from tests.records import Records

PLACE = ("default", "default")
WINDOW = 30.0
RECORD_TTL = 3600.0
LEADER_TOKEN = "leader-token"


class World:
    """Executors "exec-1" and "exec-2" live, a watcher leads; nothing is published yet."""

    def __init__(self, client: redis.Redis) -> None:
        self.redis = client
        self.keys = RedisKeys()
        self.records = Records(self.keys, RECORD_TTL, WINDOW)
        self.launch = Launch("prod", TaskKey("dag", "task", "run"), "launch-1")
        self.queue = self.keys.launch_queue("default", "normal")
        self.version = 100
        for executor in ("exec-1", "exec-2"):
            self.revive(executor)
        self.redis.set(self.keys.lease(*PLACE), LEADER_TOKEN, px=600_000)

    # Who is alive.

    def revive(self, executor: str) -> None:
        self.redis.set(self.keys.executor(executor), token(executor), px=600_000)

    def kill(self, executor: str) -> None:
        self.redis.delete(self.keys.executor(executor))

    # Values.

    def attempt(self, number: int = 1) -> Attempt:
        return self.launch.attempt(number)

    def message(self, number: int = 1, executor: str = "exec-1") -> LaunchMessage:
        return LaunchMessage(self.attempt(number), executor, *PLACE, command=("true",))

    def event(self, state: PodState, number: int = 1, **fields: Any) -> PodEvent:
        """The attempt's pod at the next resource version."""
        self.version += 1
        event = PodEvent(
            attempt=self.attempt(number),
            cluster="default",
            namespace="default",
            pod=pod_name(number),
            state=state,
            uid=f"uid-{number}",
            resource_version=self.version,
        )
        return event.changed(**fields)

    def no_pod(self, state: PodState, number: int = 1, **fields: Any) -> PodEvent:
        """A launcher's finding without a pod."""
        fields = {"uid": None, "resource_version": 0, **fields}
        return self.event(state, number, **fields)

    # Calls.

    def run(self, call: Call[Any]) -> Any:
        return run(self.redis, [call])[0]

    def publish(self, number: int = 1, executor: str = "exec-1", *, as_token: str = "") -> Any:
        message = self.message(number, executor)
        entry = queue_entry("launch.default.normal", "launch", message.as_dict())
        return self.run(
            self.records.publish(as_token or token(executor), message, self.queue, entry)
        )

    def published(self, number: int = 1, executor: str = "exec-1") -> Published:
        reply = self.publish(number, executor)
        assert isinstance(reply, Published), reply
        return reply

    def grant(self, number: int = 1, expires_at: int | None = None) -> Any:
        return self.run(
            self.records.grant(self.attempt(number), launcher="launcher-1", expires_at=expires_at)
        )

    def report(self, event: PodEvent) -> str:
        return str(self.run(self.records.report(event)))

    def apply(self, event: PodEvent, *, gone: bool = False, as_token: str = LEADER_TOKEN) -> str:
        return str(
            self.run(self.records.apply(event, gone=gone, token=as_token, leader="watcher-1"))
        )

    def condemn(self, event: PodEvent, *, as_token: str = LEADER_TOKEN) -> str:
        call = self.records.condemn(event, Cause.IMAGE_PULL, "no such image", token=as_token)
        return str(self.run(call))

    def adopt(
        self,
        executor: str = "exec-2",
        number: int = 1,
        known: PodEvent | None = None,
        *,
        as_token: str = "",
        claim: bool = True,
    ) -> Any:
        names = [pod_name(n) for n in (1, 2, 3)]
        mine, attempt = as_token or token(executor), self.attempt(number)
        return self.run(
            self.records.adopt(mine, executor, attempt, PLACE, names, known, claim=claim)
        )

    def withdraw(self, executor: str = "exec-1", number: int = 1, *, as_token: str = "") -> str:
        return str(
            self.run(
                self.records.withdraw(
                    as_token or token(executor), executor, self.attempt(number), PLACE, "revoked"
                )
            )
        )

    def cancel(self) -> Cancelled:
        call = self.records.cancel(self.launch.digest, "cancelled by ann@laptop")
        reply: Cancelled = self.run(call)
        return reply

    def finish(
        self,
        executor: str = "exec-1",
        entries: Sequence[str] = (),
        removal: DeleteMessage | None = None,
        *,
        as_token: str = "",
    ) -> str:
        return str(
            self.run(
                self.records.finish(
                    as_token or token(executor), executor, self.launch, entries, removal
                )
            )
        )

    def removal(self, number: int = 1) -> DeleteMessage:
        return DeleteMessage(
            "prod", *PLACE, pod=pod_name(number), uid=f"uid-{number}", reason="it has finished"
        )

    def park(
        self,
        number: int = 1,
        delay: float = 0.0,
        entry: str = "",
        reason: str = "no quota",
        *,
        even_launched: bool = False,
    ) -> bool:
        waiting = self.no_pod(PodState.WAITING, number, cause=Cause.QUOTA, message=reason)
        return bool(
            self.run(
                self.records.park(
                    "default",
                    launch_item(self.attempt(number)),
                    orjson.dumps(self.message(number).as_dict()),
                    delay,
                    entry=(self.queue, entry) if entry else None,
                    event=waiting,
                    even_launched=even_launched,
                )
            )
        )

    def drain(self, limit: int = 10, lease: float = 60.0) -> list[tuple[str, bytes]]:
        reply: list[tuple[str, bytes]] = self.run(self.records.drain("default", limit, lease))
        return reply

    def bury(self, entry: str, number: int = 1, *, readable: bool = True) -> bool:
        event = self.no_pod(PodState.FAILED, number, cause=Cause.DEAD, message="killed 3 launchers")
        return bool(
            self.run(
                self.records.bury(
                    self.queue, entry, "killed 3 launchers", b"{}", event if readable else None
                )
            )
        )

    def listed(self, version: int = 100) -> None:
        """The watcher has listed everything: the picture is complete."""
        terms = {"token": LEADER_TOKEN, "leader": "watcher-1"}
        assert self.run(self.records.relisting(PLACE, new_generation=False, **terms))
        assert self.run(self.records.synced(PLACE, version, **terms))

    # Time.

    def pass_window(self) -> None:
        """As if `create_before` of the record were over."""
        self.set(create_before=self.now() - 1)

    def now(self) -> int:
        seconds, microseconds = self.redis.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    # What stands in Redis.

    @property
    def task_key(self) -> str:
        return self.keys.task(self.launch.digest)

    def record(self) -> dict[str, str]:
        fields = self.redis.hgetall(self.task_key)
        return {name.decode(): value.decode() for name, value in fields.items()}

    def set(self, **fields: Any) -> None:
        self.redis.hset(self.task_key, mapping=fields)

    def told(self, executor: str = "exec-1") -> list[PodEvent]:
        """The events on an executor's result stream."""
        return [
            PodEvent.decode(f[b"event"]) for _, f in self.redis.xrange(self.keys.results(executor))
        ]

    def removals(self) -> list[DeleteMessage]:
        """Removals that launchers can take now."""
        entries = self.redis.xrange(self.keys.delete_queue("default"))
        bodies = [orjson.loads(fields[b"message"])["args"][0] for _, fields in entries]
        return [DeleteMessage.from_dict(body) for body in bodies]

    def parked_removals(self) -> dict[str, DeleteMessage]:
        """Removals that wait until a name need not be held."""
        parked = self.redis.hgetall(self.keys.parked_messages("default"))
        return {
            item.decode(): DeleteMessage.from_dict(orjson.loads(body))
            for item, body in parked.items()
            if not item.startswith(b"launch:")
        }

    def entries(self) -> list[str]:
        return [entry.decode() for entry, _ in self.redis.xrange(self.queue)]

    def deliver(self) -> str:
        """A launcher reads the next entry of the queue; its id."""
        try:
            self.redis.xgroup_create(self.queue, LAUNCHERS_GROUP, id="0", mkstream=True)
        except redis.ResponseError as error:
            assert "BUSYGROUP" in str(error)  # noqa: PT017 - any other refusal is a failure
        reply: Any = self.redis.xreadgroup(LAUNCHERS_GROUP, "c", {self.queue: ">"}, count=1)
        return str(reply[0][1][0][0].decode())

    def dump(self) -> dict[str, tuple[Any, bool]]:
        """All of Redis: every key's content and whether it will expire."""
        names = sorted(name.decode() for name in self.redis.scan_iter())
        return {name: (self.content(name), self.redis.pttl(name) > 0) for name in names}

    def content(self, name: str) -> Any:
        """What one key holds; of a stream also what is pending."""
        match self.redis.type(name):
            case b"string":
                return self.redis.get(name)
            case b"hash":
                return self.redis.hgetall(name)
            case b"zset":
                return self.redis.zrange(name, 0, -1, withscores=True)
            case b"stream":
                groups = self.redis.xinfo_groups(name)
                pending = [self.redis.xpending(name, group["name"]) for group in groups]
                return self.redis.xrange(name), pending
            case other:
                raise AssertionError(f"{name}: a {other!r} is not among kbroker's types")


def token(executor: str) -> str:
    return f"token-of-{executor}"


def pod_name(number: int) -> str:
    return f"dag-task-{number}"


def queue_entry(queue: str, actor: str, body: dict[str, Any]) -> bytes:
    return orjson.dumps(
        {
            "queue_name": queue,
            "actor_name": actor,
            "args": [body],
            "kwargs": {},
            "options": {},
            "message_id": "m",
            "message_timestamp": int(time.time() * 1000),
        }
    )
