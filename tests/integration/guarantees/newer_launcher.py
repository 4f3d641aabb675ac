"""A launcher of the next release, which reads one more schema: `dramatiq <this module>`."""

from __future__ import annotations

import kbroker.message

kbroker.message.SCHEMA += 1

import workers.launcher  # noqa: E402 - it reads messages from here on

broker = workers.launcher.broker
