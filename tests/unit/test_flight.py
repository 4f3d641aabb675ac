"""How many creates are under way at once."""

from __future__ import annotations

import asyncio

import pytest

from kbroker.flight import FIRST, Flight


async def under_way(flight: Flight, wanted: int) -> tuple[int, list[asyncio.Task[None]]]:
    """Begin so many requests that never end; how many were let in."""
    began = 0

    async def request() -> None:
        nonlocal began
        async with flight:
            began += 1
            await asyncio.Event().wait()

    tasks = [asyncio.create_task(request()) for _ in range(wanted)]
    for _ in range(5):
        await asyncio.sleep(0)
    return began, tasks


async def end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("most", [1, 5, FIRST, 64])
async def test_few_at_first_and_all_connections_in_the_end(most: int) -> None:
    flight = Flight(most)
    began, tasks = await under_way(flight, 100)
    assert began == min(FIRST, most)
    await end(tasks)
    for _ in range(300):
        flight.grow(0.01)
    began, tasks = await under_way(flight, 100)
    assert began == most
    await end(tasks)


@pytest.mark.parametrize(("seconds", "allowed"), [(0.01, 18), (0.5, 36)])
async def test_it_grows_faster_where_answers_take_long(seconds: float, allowed: int) -> None:
    flight = Flight(64)
    for _ in range(10):
        flight.grow(seconds)
    assert flight.allowed == allowed


async def test_it_begins_anew_after_a_complaint() -> None:
    flight = Flight(64)
    for _ in range(300):
        flight.grow(0.01)
    flight.shrink()
    began, tasks = await under_way(flight, 100)
    assert began == FIRST
    await end(tasks)


async def test_who_is_cancelled_while_waiting_takes_no_place() -> None:
    flight = Flight(2)
    began, first = await under_way(flight, 2)
    none, waiting = await under_way(flight, 3)
    assert (began, none) == (2, 0)
    await end(waiting)
    await end(first)
    began, tasks = await under_way(flight, 5)
    assert began == 2
    await end(tasks)


async def test_who_is_cancelled_with_its_turn_gives_it_on() -> None:
    flight = Flight(1)
    async with flight:
        _, waiting = await under_way(flight, 2)
    waiting[0].cancel()  # it was just let in
    for _ in range(5):
        await asyncio.sleep(0)
    async with asyncio.timeout(1):
        await end(waiting)
        async with flight:
            pass
