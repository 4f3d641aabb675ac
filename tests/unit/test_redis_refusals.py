"""What Redis can answer that means: not now."""

from __future__ import annotations

import pytest
from redis import exceptions
from redis._parsers.base import BaseParser

from kbroker.errors import BrokerUnavailableError
from kbroker.redis_client import availability

# As servers send them: https://redis.io/docs/latest/develop/reference/protocol-spec/ (errors).
NOT_NOW = [
    "READONLY You can't write against a read only replica.",
    "READONLY You can't write against a read only replica. script: 1f, on @user_script:3.",
    "OOM command not allowed when used memory > 'maxmemory'.",
    "OOM command not allowed when used memory > 'maxmemory'. script: 1f, on @user_script:3.",
    "LOADING Redis is loading the dataset in memory",
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    "UNKILLABLE Sorry the script already executed write commands against the dataset.",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist.",
    "NOREPLICAS Not enough good replicas to write.",
    "NOPERM User default has no permissions to run the 'evalsha' command",
    "NOAUTH Authentication required.",
    "WRONGPASS invalid username-password pair or user is disabled.",
    "CLUSTERDOWN The cluster is down",
    "TRYAGAIN Multiple keys request during rehashing of slot",
    "ERR max number of clients reached",
    "ERR Error running script (call to f_1f): @user_script:9: @user_script: 9: "
    "-READONLY You can't write against a read only replica.",
    "ERR Error running script (call to f_1f): @user_script:9: @user_script: 9: "
    "-OOM command not allowed when used memory > 'maxmemory'.",
]
BUGS = [
    "WRONGTYPE Operation against a key holding the wrong kind of value",
    "ERR user_script:1: Script attempted to access nonexistent global variable 'x'",
    "ERR unknown command 'NOTBUSY '",
]


@pytest.mark.parametrize("reply", NOT_NOW)
@pytest.mark.parametrize("place", ["{}", "Command # 2 (XADD stream) of pipeline caused error: {}"])
def test_the_role_waits(reply: str, place: str) -> None:
    error = BaseParser.parse_error(reply)
    if isinstance(error, exceptions.ResponseError):
        error.args = (place.format(error.args[0]),)
    with pytest.raises(BrokerUnavailableError, match="not available"), availability():
        raise error


@pytest.mark.parametrize("reply", BUGS)
def test_a_bug_is_not_waited_for(reply: str) -> None:
    with pytest.raises(exceptions.ResponseError), availability():
        raise BaseParser.parse_error(reply)
