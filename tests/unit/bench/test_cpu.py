"""What processes cost, as /proc tells it."""

from __future__ import annotations

import os
import subprocess
import sys

from kbroker.bench.cpu import cpu_seconds, members, peak_bytes, resident_bytes

BURN = """
import os, sys, time
child = os.fork()
while time.process_time() < 0.2:
    pass
held = bytearray(30_000_000) if child else b""
if child:
    os.waitpid(child, 0)
    del held
    print(flush=True)
    sys.stdin.read()
"""


def test_a_group_costs_what_its_processes_and_their_ended_children_do() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", BURN],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert 0.35 <= cpu_seconds(process.pid) <= 5
        assert members(process.pid) == [process.pid]
        assert peak_bytes(process.pid) >= resident_bytes(process.pid) + 20_000_000
        process.communicate()


def test_no_group_costs_nothing() -> None:
    assert cpu_seconds(-1) == 0
    assert members(-1) == []
    assert resident_bytes(os.getpid()) > 1_000_000
