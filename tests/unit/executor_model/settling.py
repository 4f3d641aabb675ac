"""The end of a history: all faults stop, time passes, and everything is delivered."""

from __future__ import annotations

from kbroker.errors import LeaseLostError
from tests.unit.executor_model.world import PLACE, RECORD_TTL, World

ROUNDS = 80
STEP = 3.0


def settle(world: World) -> None:
    """Let everybody work until nothing is left to do, and see that nothing is.

    Afterwards every wanted launch is final, nothing runs, no pod is left, and Redis holds
    nothing about any launch.
    """
    world.server.connected = True
    world.cluster.prompt, world.cluster.refusal = True, None
    for request in list(world.cluster.requests):
        world.cluster.answer(request)
    world.loop.run_until_idle()
    for _ in range(ROUNDS):
        one_round(world)
        if all(not want.wanted for want in world.wants.values()) and not busy(world):
            break
    unfinished = [want for want in world.wants.values() if want.wanted]
    assert not unfinished, f"never final: {unfinished}"
    for executor in world.executors.values():
        assert not executor.running, executor.running
    leave_nothing(world)


def busy(world: World) -> bool:
    """Whether anything is still to be worked off."""
    waits = any(world.entries(queue) for queue in world.queues) or any(
        len(executor._launches) for executor in world.executors.values()
    )
    parked = world.redis.zcard(world.keys.parked("default"))
    return bool(waits or parked or world.cluster.pods or world.redis.hlen(world.keys.pods(*PLACE)))


def one_round(world: World) -> None:
    """Everybody gets a turn."""
    world.pass_time(STEP)
    lead(world)
    for name in world.NAMES:
        if name not in world.executors:
            world.start_executor(name)
    for name, executor in world.executors.items():
        world.recover(name)
        executor.heartbeat()
        world.hand_out(name)
    deliver_all(world)
    for pod in list(world.cluster.pods.values()):
        world.cluster.bind(pod)
        world.cluster.obey(pod)
        world.cluster.start(pod)
        world.cluster.show(pod)
        world.cluster.end(pod, well=True)
    if world.term is not None:
        world.term.watch(len(world.cluster.log))
        world.term.bookmark()
        world.loop.finish(world.term.checks.check())


def lead(world: World) -> None:
    """Somebody leads the watch."""
    if world.term is not None:
        try:
            world.term.renew()
        except LeaseLostError:
            world.term = None
    if world.term is None:
        world.lead()


def deliver_all(world: World) -> None:
    """Launchers take everything that waits."""
    for queue in world.queues:
        for entry, raw in world.entries(queue):
            world.deliver(queue, entry, raw)
    world.drain()


def leave_nothing(world: World) -> None:
    """The executors leave; what only waits for the end of some time goes."""
    for name in list(world.executors):
        assert world.executors.pop(name).end(), name
    orphan_after = world.config.watcher.orphan_after
    waited = 0.0
    while world.cluster.pods and waited < 2 * orphan_after + 60:
        waited += 15.0
        world.pass_time(15.0)
        lead(world)
        assert world.term is not None
        world.term.list_all()  # as every `watcher.resync_interval`
        world.loop.finish(world.term.checks.check())
        deliver_all(world)
        world.term.watch(len(world.cluster.log))
        world.term.bookmark()
    assert not world.cluster.pods, f"left behind: {world.cluster.pods}"
    # After FLUSHALL a pod that nobody speaks for any more is an orphan.
    assert world.orphans_allowed or not waited, f"orphans for {waited} s"
    # A removal whose pod somebody else has removed.
    world.pass_time(world.config.kubernetes.create_window + 1)
    deliver_all(world)
    world.pass_time(RECORD_TTL + 1)
    left = leftovers(world)
    assert not left, left


def leftovers(world: World) -> dict[str, object]:
    """What Redis still holds about launches."""
    found: dict[str, object] = {}
    names = (key.decode().removeprefix(world.keys.prefix) for key in world.redis.scan_iter())
    for name in names:
        if name.startswith(("task:", "results:", "pods:", "executor:")) or name in (
            "tasks",
            "executors",
            "parked.default",
            "parked.default.messages",
        ):
            found[name] = world.redis.type(world.keys.prefix + name)
    for queue in world.queues:
        if world.entries(queue):
            found[queue] = world.entries(queue)
    return found
