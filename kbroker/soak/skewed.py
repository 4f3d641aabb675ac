"""Run a module with a clock that is wrong: `python -m kbroker.soak.skewed SECONDS MODULE ARGS…`."""

from __future__ import annotations

import runpy
import sys
import time


def main() -> None:
    """Run the module as if it were the main one; its `time.time` is off by so many seconds."""
    offset, module = float(sys.argv[1]), sys.argv[2]
    right = time.time
    time.time = lambda: right() + offset
    sys.argv = sys.argv[2:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
