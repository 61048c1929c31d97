"""Cuts a process off from every network but its own machine.

`conftest` imports it and puts its folder on PYTHONPATH: Python imports a `sitecustomize` by itself
when it starts, so that every process of a test is cut off too. It covers what goes through
Python's sockets; running the whole suite under `unshare --net` covers the rest
(docs/reliability.md, A11).
"""

import errno
import ipaddress
import socket
import sys
from typing import Any

_NAMES = ("", "localhost", socket.gethostname())
_CONNECTING = ("socket.connect", "socket.sendto", "socket.sendmsg")
_LOOKING_UP = ("socket.getaddrinfo", "socket.gethostbyname")


def _stays_here(host: Any) -> bool:
    name = host.decode() if isinstance(host, bytes) else host
    try:
        return name is None or name in _NAMES or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event in _CONNECTING:
        address = arguments[1]  # of Unix sockets: text; None: connected before
        host = address[0] if isinstance(address, tuple) else None
    elif event in _LOOKING_UP:
        host = arguments[0]
    else:
        return
    if not _stays_here(host):
        raise OSError(errno.ENETUNREACH, f"the tests have no network: {event} {host}")


sys.addaudithook(_refuse)
