"""A stand-in for redis-cli, for machines without one: the same arguments, plain output."""

from __future__ import annotations

import sys

import redis


def main(arguments: list[str]) -> int:
    """Send one command; `-u URL` says where to."""
    url = "redis://127.0.0.1:6379/0"
    if arguments[:1] == ["-u"]:
        url, arguments = arguments[1], arguments[2:]
    with redis.Redis.from_url(url, protocol=2) as client:
        # Without the client's own ideas of what the reply should look like.
        client.response_callbacks.clear()
        try:
            reply = client.execute_command(*arguments)
        except redis.ResponseError as error:
            print(f"(error) {error}")
            return 1
    _show(reply)
    return 0


def _show(reply: object) -> None:
    if isinstance(reply, list | tuple):
        for part in reply:
            _show(part)
    elif isinstance(reply, bytes):
        print(reply.decode(errors="backslashreplace"))
    else:
        print("" if reply is None else reply)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
