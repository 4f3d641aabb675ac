"""Key names: what redis-cli shows, and that one slot of a Redis cluster holds them all."""

from __future__ import annotations

import inspect

import pytest

from kbroker import keys as module
from kbroker.keys import RedisKeys

K = RedisKeys()
TABLE = [
    (K.launch_queue("east", "high"), "{kbroker}:launch.east.high", "launch.C.P"),
    (K.delete_queue("east"), "{kbroker}:delete.east", "delete.C"),
    (K.secrets_queue("east"), "{kbroker}:secrets.east", "secrets.C"),
    (K.log_queue("east"), "{kbroker}:logs.east", "logs.C"),
    (K.reply("0f" * 16), "{kbroker}:reply:" + "0f" * 16, "reply:R"),
    (K.parked("east"), "{kbroker}:parked.east", "parked.C"),
    (K.parked_messages("east"), "{kbroker}:parked.east.messages", "parked.C.messages"),
    (K.results("exec-1"), "{kbroker}:results:exec-1", "results:E"),
    (K.task("0f" * 20), "{kbroker}:task:" + "0f" * 20, "task:D"),
    (K.tasks, "{kbroker}:tasks", "tasks"),
    (K.executors, "{kbroker}:executors", "executors"),
    (K.pods("east", "jobs"), "{kbroker}:pods:east:jobs", "pods:C:N"),
    (K.watch("east", "jobs"), "{kbroker}:watch:east:jobs", "watch:C:N"),
    (K.lease("east", "jobs"), "{kbroker}:lease:east:jobs", "lease:C:N"),
    (K.executor("exec-1"), "{kbroker}:executor:exec-1", "executor:E"),
    (K.pace("east"), "{kbroker}:pace:east", "pace:C"),
    (K.full("east"), "{kbroker}:full:east", "full:C"),
    (K.full_namespace("east", "jobs"), "{kbroker}:full:east:jobs", "full:C:N"),
    (K.full_launches("east", "jobs"), "{kbroker}:full:east:jobs:launches", "full:C:N:launches"),
    (K.dead, "{kbroker}:dead", "dead"),
]


@pytest.mark.parametrize(("key", "name", "heading"), TABLE)
def test_names(key: str, name: str, heading: str) -> None:
    assert key == name


@pytest.mark.parametrize(("key", "name", "heading"), TABLE)
def test_the_header_documents_it(key: str, name: str, heading: str) -> None:
    lines = (module.__doc__ or "").splitlines()
    assert any(line.split()[:1] == [heading] for line in lines)


def test_the_table_is_complete() -> None:
    """A new key must be named here and documented in the header."""
    members = {name for name, _ in inspect.getmembers(RedisKeys) if not name.startswith("_")} - {
        "prefix"
    }
    assert len(members) == len(TABLE)


def test_another_prefix() -> None:
    other = RedisKeys("{prod}:kbroker:")
    assert other.dead == "{prod}:kbroker:dead"
    assert other.task("d") == "{prod}:kbroker:task:d"


def test_no_two_keys_coincide() -> None:
    assert len({key for key, _, _ in TABLE}) == len(TABLE)
