"""A task's log without any access to Kubernetes: a launcher is asked for it through Redis.

What a launch waits for, or how it ended, stands in its record; only where a pod is known
is there anything to ask for. Nothing is raised because something is away: who wants to
see a log is told in words why there is none, within a second of `wait` if the client waits
for Redis no longer than that.
"""

from __future__ import annotations

import time
from typing import Any, ClassVar

import redis

from kbroker.errors import BrokerUnavailableError, MessageError
from kbroker.event import PodState
from kbroker.keys import RedisKeys
from kbroker.kube_config import KubeConfig
from kbroker.launch_detail import Detail, detail, newest_look
from kbroker.launch_explanation import explain, no_launcher
from kbroker.log_message import LogAnswer, LogRequest, reply_name
from kbroker.pod import BASE
from kbroker.redis_client import availability
from kbroker.task import Launch
from kbroker.value import Value

# More than so many requests are not waiting because they were just sent: nobody takes them.
_MOST_WAITING = 1000
_LOOK_AGAIN = 0.03
_KEPT = 60_000  # ms that requests stay after the last one that nobody takes
_BY_NOW = {
    PodState.PENDING: "has not started",
    PodState.RUNNING: "is running",
    PodState.SUCCEEDED: "has succeeded",
    PodState.FAILED: "has failed",
}


class TaskLog(Value, frozen=True):
    """The end of a task's log, and what is to be said beside it.

    Attributes:
        text: the last lines; "" where there are none, and then `notes` says why.
        source: whose log it is, such as "pod default/etl-load-0f3a, container base, last 100
            lines"; "" where no pod is known.
        notes: sentences for who wants to see it: why the task waits or how it ended, what
            Kubernetes reported about its pod, why there is no log.
    """

    HIDDEN: ClassVar[frozenset[str]] = frozenset({"text"})

    text: str
    source: str
    notes: tuple[str, ...]


def task_log(
    client: redis.Redis, config: KubeConfig, launch: Launch, *, lines: int = 100, wait: float = 3.0
) -> TaskLog:
    """The end of the log of a launch's pod, running or finished; else why there is none.

    Args:
        client: connection to Redis.
        config: names the keys.
        launch: whose log.
        lines: how many last lines, from 1 to `log_message.MOST_LINES`.
        wait: seconds to wait for a launcher's answer.

    Raises:
        ValueError: `lines` is out of bounds.
    """
    keys = RedisKeys(config.broker.prefix)
    try:
        seen = detail(client, keys, launch.digest)
    except BrokerUnavailableError as error:
        return TaskLog("", "", (_away(error),))
    if seen is None:
        return TaskLog("", "", (_forgotten(launch, config.broker.record_ttl),))
    if not seen.pod:
        return TaskLog("", "", (explain(seen),))
    request = LogRequest(
        deployment=launch.deployment,
        cluster=seen.cluster,
        namespace=seen.namespace,
        pod=seen.pod,
        uid=seen.record.uid,
        lines=lines,
        reply=reply_name(),
        until=seen.now + int(wait * 1000),
    )
    try:
        found = _asked(client, keys, config.broker.default_priority, request, wait)
    except BrokerUnavailableError as error:
        found = _away(error)
    except MessageError as error:
        found = f"The launcher's answer cannot be read: {error}."
    return told(seen, found)


def told(seen: Detail, found: LogAnswer | str) -> TaskLog:
    """What a launcher's answer, or why there is none, means for who wants to see the log.

    Args:
        seen: the launch, whose pod is known.
        found: the answer, or a sentence.
    """
    source = f"pod {seen.namespace}/{seen.pod}"
    notes = [explain(seen)]
    if isinstance(found, str):
        return TaskLog("", source, (*notes, found))
    event = seen.record.event
    news = event is None or not (event.final or event.state is found.state)
    if found.state is not None and news:
        notes.append(_sentence(f"By now its pod {_BY_NOW[found.state]}", found.why))
    notes += [_sentence("Kubernetes reported", event) for event in found.events]
    notes += [_sentence(note) for note in found.notes]
    if found.exists is False:
        notes.append("Its pod no longer exists, and its log went with it.")
    count = len(found.text.splitlines())
    if count:
        last = f"{count} lines" if count > 1 else "line"
        source += f", container {BASE}, last {last}"
    elif not found.notes and found.exists and found.state is not PodState.PENDING:
        notes.append("Its log is empty.")
    return TaskLog(found.text, source, tuple(notes))


def _asked(
    client: redis.Redis, keys: RedisKeys, priority: str, request: LogRequest, wait: float
) -> LogAnswer | str:
    """A launcher's answer, or why there is none.

    Raises:
        BrokerUnavailableError: Redis is away.
        MessageError: the answer cannot be read.
    """
    queue, entry = keys.log_queue(request.cluster), request.encode()
    reply = keys.reply(request.reply)
    ends = time.monotonic() + wait
    with availability():
        if client.llen(queue) >= _MOST_WAITING:
            return _untaken(client, keys, priority, request, "Too many requests for logs wait.")
        pipe = client.pipeline(transaction=True)
        pipe.rpush(queue, entry)
        pipe.pexpire(queue, int(wait * 1000) + _KEPT)
        pipe.execute()
        answer = _awaited(client, reply, ends)
        if answer is not None:
            return LogAnswer.decode(answer)
        # Nobody needs to take it any more; who has answered meanwhile is heard.
        pipe = client.pipeline(transaction=True)
        pipe.lrem(queue, 1, entry.decode())
        pipe.lpop(reply)
        left, answer = pipe.execute()
        if answer is not None:
            return LogAnswer.decode(answer)
    if left:
        said = f"No launcher of cluster {request.cluster} answered within {wait:g} s."
        return _untaken(client, keys, priority, request, said)
    return f"A launcher was asked for its log and gave no answer within {wait:g} s: try again."


def _awaited(client: redis.Redis, reply: str, ends: float) -> bytes | None:
    """The answer; None when it did not come by then (monotonic seconds)."""
    # A blocking read would have to end before the client's own patience does, and Redis looks
    # at the time of those who wait ten times a second only.
    while True:
        answer: Any = client.lpop(reply)
        left = ends - time.monotonic()
        if answer is not None or left <= 0:
            return None if answer is None else bytes(answer)
        time.sleep(min(_LOOK_AGAIN, left))


def _untaken(
    client: redis.Redis, keys: RedisKeys, priority: str, request: LogRequest, said: str
) -> str:
    """What is `said`, with why no launcher took a request, and what to do.

    Raises:
        BrokerUnavailableError: Redis is away.
    """
    queue = keys.launch_queue(request.cluster, priority)
    nobody = no_launcher(queue, newest_look(client, queue))
    if nobody is not None:
        return f"{said} {nobody}"
    return (
        f"{said} There are launchers, but they are busy with other logs, or older than this "
        "kbroker: try again, and upgrade launchers first."
    )


def _away(error: BrokerUnavailableError) -> str:
    return f"The log cannot be asked for: {error}."


def _forgotten(launch: Launch, ttl: float) -> str:
    return (
        f"Nothing is recorded of {launch.key}, launch {launch.launch_id}: it was not published "
        f"yet, or ended more than {ttl / 3600:g} h ago (broker.record_ttl), and its log went with "
        "its pod."
    )


def _sentence(*parts: str) -> str:
    text = ": ".join(" ".join(part.split()).rstrip(".") for part in parts if part)
    return f"{text[:1].upper()}{text[1:]}."
