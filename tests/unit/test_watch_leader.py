"""The leader's duties side by side: the first that ends ends the others."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from kbroker.errors import BrokerUnavailableError
from kbroker.watch_leader import _first_of


async def fails(message: str) -> None:
    await asyncio.sleep(0)
    raise BrokerUnavailableError(message)


async def fails_when_it_is_ended(message: str) -> None:
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        raise BrokerUnavailableError(message) from None


@pytest.mark.parametrize("second", [fails, fails_when_it_is_ended])
async def test_duties_that_fail_together_fail_as_one(second: Any) -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, about: complaints.append(about))
    with pytest.raises(BrokerUnavailableError, match="the first"):
        await _first_of(fails("the first"), second("the second"))
    gc.collect()  # it is then that asyncio says what nobody has asked for
    assert complaints == []
