"""How a worker process treats its memory."""

from __future__ import annotations

import gc

# Nearly everything is freed by counting references. What is left for the collector comes from
# requests that failed, so it may come seldom: by default it looks at each batch several times.
_OFTEN, _SELDOM, _HARDLY = 20_000, 20, 50


def boot_is_over() -> None:
    """What has been made until now lives as long as the process: the collector need not look."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_OFTEN, _SELDOM, _HARDLY)
