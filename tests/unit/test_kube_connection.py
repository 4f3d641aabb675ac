"""One connection: whatever the pieces, the same answers; and never somebody else's answer."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbroker.kube_connection import Answer, KubeConnection

LENGTH = b"HTTP/1.1 201 Created\r\nContent-Length: 5\r\nX-One: 1\r\n\r\nhello"
CHUNKED = (
    b"HTTP/1.1 409 Conflict\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
)
EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"
ANNOUNCED = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
LAST = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno"
TO_THE_END = b"HTTP/1.0 503 Service Unavailable\r\nRetry-After: 2\r\n\r\n<html>no</html>"

ANSWERS = {
    LENGTH: (201, "Created", b"hello"),
    CHUNKED: (409, "Conflict", b"abcde"),
    EMPTY: (204, "No Content", b""),
    ANNOUNCED + LENGTH: (201, "Created", b"hello"),
    LAST: (200, "OK", b"no"),
}


class Wire(asyncio.Transport):
    """The other end: it notes what is sent, and says what the test wants."""

    def __init__(self, connection: KubeConnection) -> None:
        super().__init__()
        self.connection = connection
        self.sent: list[bytes] = []
        self.aborted = False
        connection.connection_made(self)

    def write(self, data: Any) -> None:
        self.sent.append(bytes(data))

    def abort(self) -> None:
        if not self.aborted:
            self.aborted = True
            self.connection.connection_lost(None)

    async def answer(self, *pieces: bytes, lost: bool = False) -> Answer:
        """Ask, and answer in these pieces."""
        asking = asyncio.create_task(self.connection.ask(b"request", 10.0))
        await asyncio.sleep(0)
        for piece in pieces:
            self.connection.data_received(piece)
        if lost:
            self.connection.connection_lost(None)
        return await asking


def said(answer: Answer) -> tuple[int, str, bytes]:
    return answer.status, answer.phrase, answer.body


@given(
    st.lists(st.sampled_from([a for a in ANSWERS if a != LAST]), min_size=1, max_size=4),
    st.sets(st.integers(1, 200)),
)
def test_answers_are_the_same_in_whatever_pieces_they_come(
    answers: list[bytes], cuts: set[int]
) -> None:
    async def play() -> None:
        wire = Wire(KubeConnection())
        for answer in answers:
            places = [0, *sorted(c for c in cuts if c < len(answer)), len(answer)]
            pieces = [answer[a:b] for a, b in pairwise(places)]
            assert said(await wire.answer(*pieces)) == ANSWERS[answer]
            assert wire.connection.usable

    asyncio.run(play())


async def test_headers_are_told_by_their_names_in_lower_case() -> None:
    answer = await Wire(KubeConnection()).answer(LENGTH)
    assert answer.headers == {"content-length": "5", "x-one": "1"}


async def test_a_server_that_closes_after_its_answer_is_not_asked_again() -> None:
    wire = Wire(KubeConnection())
    assert said(await wire.answer(LAST)) == ANSWERS[LAST]
    assert not wire.connection.usable


async def test_an_answer_that_only_the_connections_end_ends() -> None:
    answer = await Wire(KubeConnection()).answer(TO_THE_END[:40], TO_THE_END[40:], lost=True)
    assert said(answer) == (503, "Service Unavailable", b"<html>no</html>")
    assert answer.headers == {"retry-after": "2"}


@pytest.mark.parametrize(
    "pieces", [(), (LENGTH[:-1],), (CHUNKED[:-7],), (TO_THE_END[:40],), (ANNOUNCED,)]
)
async def test_an_answer_that_breaks_off_is_none(pieces: tuple[bytes, ...]) -> None:
    with pytest.raises(ConnectionResetError, match="disconnected"):
        await Wire(KubeConnection()).answer(*pieces, lost=True)


async def test_what_is_not_http_ends_the_connection() -> None:
    wire = Wire(KubeConnection())
    with pytest.raises(ConnectionError, match="not HTTP"):
        await wire.answer(b"SSH-2.0-OpenSSH_9.6\r\n")
    assert wire.aborted
    assert not wire.connection.usable


async def test_an_answer_to_no_request_ends_the_connection() -> None:
    wire = Wire(KubeConnection())
    await wire.answer(LENGTH)
    wire.connection.data_received(LENGTH)
    assert wire.aborted
    assert not wire.connection.usable


async def test_an_answer_with_more_behind_it_is_the_last_one() -> None:
    wire = Wire(KubeConnection())
    assert said(await wire.answer(LENGTH + LENGTH)) == ANSWERS[LENGTH]
    assert not wire.connection.usable


async def test_an_answer_that_does_not_come_is_not_waited_for_longer() -> None:
    wire = Wire(KubeConnection())
    with pytest.raises(TimeoutError):
        await wire.connection.ask(b"request", 0.01)
    # Whoever asked closes it; until then an answer that comes after all is nobody's.
    wire.connection.data_received(LENGTH)
    assert wire.aborted
    assert not wire.connection.usable


async def test_a_late_answer_meets_nobody() -> None:
    wire = Wire(KubeConnection())
    asking = asyncio.create_task(wire.connection.ask(b"request", 10.0))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    wire.connection.close()
    assert wire.aborted
    assert not wire.connection.usable
