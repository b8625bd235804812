"""Ports of the loopback that nobody uses."""

from __future__ import annotations

import contextlib
import socket

__all__ = ["free_ports"]


def free_ports(n: int) -> list[int]:
    """Return ports that were free a moment ago, each another."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(n)]
        return [each.getsockname()[1] for each in sockets]
