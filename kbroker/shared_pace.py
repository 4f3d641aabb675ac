"""The pace that all launchers of one API server obey, shared through Redis.

When the API server tells one launcher to come back later, it means all of them: each would be
answered the same, and asking costs the server what it lacks. And what it can take is one
number for all of them.

While nothing is limited, this costs one look in a pipeline that is sent anyway. Otherwise all
launchers take *slots* of one schedule, a few at a time (GCRA), so that a launcher that dies
costs no more than those, and every launcher that wants slots gets them in turn.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import redis.asyncio

from kbroker import pace
from kbroker.errors import BrokerUnavailableError
from kbroker.keys import RedisKeys
from kbroker.pace import Counts, Curve, Lane
from kbroker.pace_lane import PaceLane, Slots
from kbroker.redis_client import Call, run_async, script
from kbroker.value import Value

log = logging.getLogger(__name__)

# So many seconds of the schedule are taken at once: all launchers together ask 40 times a second.
_CHUNK = 0.025
# How long a complaint without a Retry-After stops everybody, in seconds: until what was sent
# before it is answered and counted.
_SETTLE = 0.25
# Complaints that come together are told together, in seconds.
_TOGETHER = 0.02
# Seconds until the next look where all slots of the near future are taken, and where Redis is away.
_LATER = 0.2
_AWAY = 1.0
# After a pause not everybody asks at once, in seconds.
_JITTER = 0.05


_NOTHING = Counts(0, 0, 0)


class Moment(Value, frozen=True):
    """What Redis says; times in ms by its clock.

    Attributes:
        now: the present.
        not_before: until when nobody is to ask the API server for a new pod.
        turn: which curve it is; "0" for none.
        curve: how the rate grows; None if nothing is limited.
        complained: when the API server complained, if that is not judged yet; else 0.
        judged: when it complained before; 0 for never.
        counts: of the last few seconds.
        busy: whether launches want slots.
        first: when the first of the slots begins that were taken; None for none.
        slots: how many were taken.
    """

    now: int
    not_before: int
    turn: str = "0"
    curve: Curve | None = None
    complained: int = 0
    judged: int = 0
    counts: Counts = _NOTHING
    busy: bool = False
    first: float | None = None
    slots: int = 0

    @property
    def pause(self) -> float:
        """Seconds to wait."""
        return pace.pause(self.not_before, self.now)


class SharedPace:
    """One process's view of a cluster's pace.

    Args:
        client: connection to Redis.
        keys: names of the keys.
        cluster: name of the cluster.
        longest: longest pause that is obeyed, in seconds.
        limit: creates per second of all launchers together; 0 for no limit.
        rng: for the jitter.
        monotonic: seconds that never jump.
        sleep: waits for some seconds.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        keys: RedisKeys,
        cluster: str,
        longest: float,
        limit: float,
        *,
        rng: random.Random,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._client = client
        self._key = keys.pace(cluster)
        self._longest = longest
        self._limit = limit
        self._rng = rng
        self._monotonic = monotonic
        self._sleep = sleep
        self._until = 0.0
        self._last = Moment(0, 0)
        self._heard_at = monotonic()
        self._done = self._refused = 0
        self._telling = False
        self._lanes = {lane: PaceLane(partial(self._take, lane), monotonic, sleep) for lane in Lane}

    @property
    def pause(self) -> float:
        """Seconds to wait before the next request; 0 for none."""
        return max(0.0, self._until - self._monotonic())

    @property
    def rate(self) -> float:
        """Creates per second by all launchers; infinite for no limit."""
        if self._last.curve is None:
            return self._limit or math.inf
        return pace.rate(self._last.curve, self._now(), self._limit)

    # In pipelines that are sent anyway.

    def look(self) -> Call[Moment]:
        """Asks for the shared pace, and says what was done since the last time."""
        return self._call(0.0, None, 0, 0.0)

    def heard(self, moment: Moment) -> None:
        """Take over what `look` answered."""
        self._heard_at = self._monotonic()
        self._last = moment
        self._until = max(self._until, self._heard_at + moment.pause)

    # Before a request, and after it.

    async def turn(self, lane: Lane, ends: float) -> bool:
        """Wait until a request may be sent; False if not before `ends` (monotonic seconds)."""
        queue = self._lanes[lane]
        if self._free and queue.empty:
            return True
        if self._monotonic() + self.pause >= ends:
            return False
        return await queue.turn(ends)

    def done(self) -> None:
        """A pod was created or removed."""
        self._done += 1

    async def refused(self, seconds: float | None) -> None:
        """The API server had too much to do; it asked for this pause, if for any.

        What cannot be told because Redis is away is kept by this process alone.
        """
        self._refused += 1
        await self.complain(seconds)

    async def complain(self, seconds: float | None = None) -> None:
        """Stop everybody, and judge the rate anew; see `refused`."""
        seconds = max(_SETTLE, min(seconds or 0.0, self._longest))
        self._until = max(self._until, self._monotonic() + seconds)
        if self._telling:
            return
        self._telling = True
        try:
            await self._sleep(_TOGETHER)
            left = max(0.001, self.pause)
            self.heard((await run_async(self._client, [self._call(left, None, 0, 0.0)]))[0])
        except BrokerUnavailableError as error:
            log.warning("cannot tell the pace: %s", error, extra={"action": "pace"})
        finally:
            self._telling = False

    async def close(self) -> None:
        """Send away who waits."""
        for lane in self._lanes.values():
            await lane.close()

    # The schedule.

    @property
    def _free(self) -> bool:
        if self._last.complained or self._monotonic() < self._until:
            return False
        return math.isinf(self.rate)

    async def _take(self, lane: Lane, waiting: int) -> Slots:
        if self._free:
            return Slots((self._monotonic(),) * waiting)
        try:
            if self.pause:
                if self._done + self._refused:
                    # Before the complaint is judged, everybody says what was done until then.
                    await self._look()
                return Slots(again=self.pause + _JITTER * self._rng.random())
            if self._last.complained:
                await self._look()
                if self._last.complained and not self.pause:
                    await self._judge(self._last)
                return Slots()
            return await self._take_some(lane, waiting)
        except BrokerUnavailableError:
            return Slots(again=_AWAY)

    async def _take_some(self, lane: Lane, waiting: int) -> Slots:
        rate, turn = self.rate, self._last.turn
        if lane is Lane.REMOVE and self._last.busy:
            rate *= pace.REMOVALS
        wanted = min(waiting, max(1, round(rate * _CHUNK)))
        call = self._call(0.0, lane, wanted, 1000 / rate)
        self.heard((await run_async(self._client, [call]))[0])
        moment = self._last
        if moment.first is None:
            changed = moment.turn != turn or moment.complained or moment.pause
            return Slots(again=0.0 if changed else _LATER * (0.5 + self._rng.random()))
        begins = self._heard_at + (moment.first - moment.now) / 1000
        return Slots(tuple(begins + number / rate for number in range(moment.slots)))

    async def _judge(self, seen: Moment) -> None:
        """Decide about a complaint; the first launcher's decision holds for all."""
        curve = pace.judge(
            seen.curve, seen.counts, seen.complained, seen.judged, seen.now, self._limit
        )
        first, moment = await run_async(self._client, [self._turned(seen, curve), self.look()])
        self.heard(moment)
        if not first:
            return
        log.info(
            "the API server complained: %s",
            "once, nothing is limited" if curve is None else f"{curve.start:.1f} creates/s",
            extra={"action": "pace"},
        )

    async def _look(self) -> None:
        self.heard((await run_async(self._client, [self.look()]))[0])

    def _now(self) -> int:
        """Redis' clock in ms, as far as it is known."""
        return self._last.now + int((self._monotonic() - self._heard_at) * 1000)

    def _call(self, pause: float, lane: Lane | None, wanted: int, spacing: float) -> Call[Moment]:
        done, refused = self._done, self._refused
        self._done = self._refused = 0
        arguments = (
            done,
            refused,
            int(pause * 1000),
            int(self._longest * 1000) + int(_SETTLE * 1000),
            lane or "",
            wanted,
            spacing,
            self._last.turn,
            int(pace.FORGET * 1000),
        )
        return Call(script("pace"), (self._key,), arguments, _moment)

    def _turned(self, seen: Moment, curve: Curve | None) -> Call[bool]:
        shape: tuple[str | int | float, ...] = ("", "", "", "")
        if curve is not None:
            shape = (curve.since, curve.start, curve.peak, curve.recovery)
        return Call(
            script("pace_turn"), (self._key,), (seen.turn, str(seen.complained), *shape), bool
        )


def _moment(reply: Any) -> Moment:
    now, not_before, *more = (value.decode() for value in reply)
    if not more:
        return Moment(int(now), int(not_before))
    turn, complained, judged, since, start, peak, recovery, *more = more
    counted, done, refused, busy, first, count = more
    curve = Curve(float(start), float(peak), float(recovery), int(since)) if since else None
    counts = Counts(int(counted), int(done), int(refused))
    return Moment(
        now=int(now),
        not_before=int(not_before),
        turn=turn,
        curve=curve,
        complained=int(complained),
        judged=int(judged),
        counts=counts,
        busy=busy == "1",
        first=float(first) if first else None,
        slots=int(count),
    )
