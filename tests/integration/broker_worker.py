"""A worker process for the broker's contract: `dramatiq tests.integration.broker_worker`.

Each message is one order, {"n": number, "do": …}; what happens to it is appended
to the file $LEDGER, one line each: event, number, deliveries, size of the call, pid.
"""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import dramatiq

from kbroker.broker import StreamsBroker
from kbroker.queue_entry import QueueEntry, Unfinished

broker = StreamsBroker(
    os.environ["REDIS_URL"], redelivery_after=float(os.environ.get("REDELIVERY_AFTER", "1"))
)
dramatiq.set_broker(broker)


def note(event: str, entry: QueueEntry, size: int) -> None:
    line = f"{event} {entry.args[0]['n']} {entry.deliveries} {size} {os.getpid()}\n"
    with open(os.environ["LEDGER"], "a") as ledger:
        ledger.write(line)


async def work(entries: list[QueueEntry]) -> None:
    """Carry out the orders of one call; together, if they sleep."""
    for entry in entries:
        note("start", entry, len(entries))
    orders: list[dict[str, Any]] = [entry.args[0] for entry in entries]
    if any(order["do"] == "die" for order in orders):
        os.kill(os.getpid(), signal.SIGKILL)
    await asyncio.sleep(max(order.get("seconds", 0.0) for order in orders))
    if any(order["do"] == "raise" for order in orders):
        raise RuntimeError("told to")
    again = {e.id for e in entries if e.args[0]["do"] == "retry" and e.deliveries == 1}
    later = {e.id for e in entries if e.args[0]["do"] == "later"}
    for entry in entries:
        if entry.id not in again | later:
            note("end", entry, len(entries))
    if again or later:
        raise Unfinished(retry=again, later=later)


if os.environ.get("ACTOR", "work"):
    dramatiq.actor(actor_name="work", queue_name="work", batch_size=25)(work)
else:
    broker.declare_queue("work")
