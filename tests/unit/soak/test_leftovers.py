"""What is left of a soak is looked for with patience."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import fakeredis

from kbroker.keys import RedisKeys
from kbroker.kube_answer import ApiError, ApiFailure
from kbroker.kube_config import KubeConfig
from kbroker.pod import Metadata, Pod
from kbroker.soak.leftovers import Leftovers


def leftovers(*looks: Any) -> tuple[list[Any], list[str]]:
    """What is found when the API server says these things, one a look; looks that were not made."""
    left = list(looks)

    def look() -> list[Pod]:
        found = left.pop(0)
        if isinstance(found, Exception):
            raise found
        return list(found)

    stack: Any = SimpleNamespace(
        config=KubeConfig(),
        keys=RedisKeys("{kbroker}:"),
        redis=fakeredis.FakeStrictRedis(),
        pods=SimpleNamespace(all=look),
        keep_up=lambda: None,
    )
    return left, Leftovers(stack).wait()


def test_a_pod_that_goes_is_waited_for() -> None:
    pod = Pod(metadata=Metadata(name="pod-1"))
    assert leftovers([pod], [], [pod]) == ([[pod]], [])  # the third look was not needed


def test_an_api_server_that_does_not_answer_is_asked_again() -> None:
    silent = ApiError(ApiFailure(0, "timeout", "no connection in time", sent=False))
    assert leftovers(silent, []) == ([], [])
