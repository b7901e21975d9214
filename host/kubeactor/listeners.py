"""The listening sockets of a supervisor, which outlive its workers and even its own program.

While a worker is replaced, or the supervisor executes itself anew, connections wait in the listen backlog.
"""

from __future__ import annotations

import errno
import json
import os
import socket
from typing import Final

__all__ = ["ListenError", "Listeners"]

BACKLOG: Final = 4096  # the kernel cuts it at net.core.somaxconn
ENVIRONMENT: Final = "KUBEACTOR_LISTENERS"


class ListenError(Exception):
    """Raised when an address can't be listened on; one sentence for the user."""


class Listeners:
    """Makes listening sockets, or finds them again after `Supervisor.reexec`."""

    def __init__(self) -> None:
        self._inherited = _inherited()
        self._made: list[tuple[str, int, socket.socket]] = []
        self.reexecuted = ENVIRONMENT in os.environ
        os.environ.pop(ENVIRONMENT, None)

    def listen(self, host: str, port: int) -> socket.socket:
        """A non-blocking socket that listens on host:port; port 0 takes a free one.

        Raises:
            ListenError: when the port is taken, needs more rights, or the host is no address of this machine.
        """
        waiting = self._inherited.get(f"{host}:{port}")
        sock = waiting.pop(0) if waiting else _listening(host, port)
        sock.setblocking(False)
        self._made.append((host, port, sock))
        return sock

    def sockets(self) -> list[socket.socket]:
        """All sockets made so far."""
        return [sock for _, _, sock in self._made]

    def close_unclaimed(self) -> None:
        """Closes the inherited sockets that nobody asked for again."""
        for waiting in self._inherited.values():
            for sock in waiting:
                sock.close()
        self._inherited = {}

    def hand_over(self) -> None:
        """Leaves the sockets open, and named in the environment, for the program that this process executes next."""
        table: dict[str, list[int]] = {}
        for host, port, sock in self._made:
            sock.set_inheritable(True)
            table.setdefault(f"{host}:{port}", []).append(sock.fileno())
        os.environ[ENVIRONMENT] = json.dumps({"pid": os.getpid(), "sockets": table})

    def close(self) -> None:
        """Closes all of them."""
        self.close_unclaimed()
        for sock in self.sockets():
            sock.close()
        self._made = []


def _inherited() -> dict[str, list[socket.socket]]:
    order = json.loads(os.environ.get(ENVIRONMENT, "null"))
    # A child of the executing process sees the variable too, and its descriptors are something else.
    if not order or order["pid"] != os.getpid():
        return {}
    table = {address: [socket.socket(fileno=fd) for fd in fds] for address, fds in order["sockets"].items()}
    for waiting in table.values():
        for sock in waiting:
            sock.set_inheritable(False)
    return table


def _listening(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        return socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        raise ListenError(_sentence(host, port, error)) from error


def _sentence(host: str, port: int, error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return f"host {host!r} is unknown: {error.strerror}"
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is taken: another process listens on {host}:{port}; end that one, or choose another port"
    if error.errno == errno.EACCES:
        return f"port {port} needs more rights than this process has"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is no address of this machine"
    return f"{host}:{port} can't be listened on: {error.strerror}"
