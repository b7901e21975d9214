"""The way from a router to one host: a connection that is made again as often as it breaks."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from kubeactor.connection import ClientConnection, dial
from kubeactor.wire import Hello, Welcome, WireError

__all__ = ["Link"]

FIRST_S: Final = 0.005
LONGEST_S: Final = 0.25
SOUND_S: Final = 0.1
DIAL_S: Final = 10.0

_log = logging.getLogger(__name__)


class Link:
    """Keeps one connection to a host open until `close`.

    A worker that is forked anew answers on the socket that its supervisor holds, so it pays to knock at once, and then
    after 5 ms, 10 ms ... 250 ms. Connections that do not live for 0.1 s count as failures, or a host and a router
    that do not understand each other would keep both busy.

    Attributes:
        connection: the open one, or None.
        hello: what the next connection says first.
        trouble: why there is none, as one sentence; empty while there is.
        opens: how many times a connection was opened.
    """

    def __init__(
        self,
        host: str,
        address: str,
        hello: Hello,
        check: Callable[[str, Welcome], str],
        opened: Callable[[str], None],
        resumed: Callable[[str], None],
    ) -> None:
        """Start to connect.

        Args:
            host: whom to reach.
            address: where, see `connection.dial`.
            hello: what to say first.
            check: says what is wrong with the host that answered; empty if nothing is.
            opened: called with the host when a connection opened.
            resumed: called with the host when its connection can be written to again.
        """
        self.host = host
        self.address = address
        self.connection: ClientConnection | None = None
        self.trouble = "not connected yet"
        self.opens = 0
        self.hello = hello
        self._check = check
        self._opened = opened
        self._resumed = resumed
        self._task = asyncio.get_running_loop().create_task(self._keep(), name=f"link to {host}")

    @property
    def ready(self) -> ClientConnection | None:
        """The connection, if a frame written now has a way out."""
        connection = self.connection
        return connection if connection is not None and connection.usable else None

    async def _keep(self) -> None:
        delay = FIRST_S
        while True:
            try:
                connection = await self._open()
            except (OSError, ValueError, WireError) as error:
                self._troubled(str(error) or type(error).__name__)
            else:
                since = time.monotonic()
                await connection.done.wait()
                self.connection = None
                self._troubled(connection.reason)
                if time.monotonic() - since >= SOUND_S:
                    delay = FIRST_S
                    continue
            await asyncio.sleep(delay)
            delay = min(delay * 2, LONGEST_S)

    async def _open(self) -> ClientConnection:
        connection = await dial(self.address, self.hello, DIAL_S)
        assert connection.welcome is not None
        if wrong := self._check(self.host, connection.welcome):
            connection.close(wrong)
            raise WireError(wrong)
        self.connection = connection
        self.trouble = ""
        self.opens += 1
        connection.resumed = partial(self._resumed, self.host)
        self._opened(self.host)
        return connection

    def _troubled(self, trouble: str) -> None:
        if trouble != self.trouble:
            _log.warning("%s at %s: %s", self.host, self.address, trouble)
        self.trouble = trouble

    async def close(self) -> None:
        """Cut the connection and make no other."""
        self.cut()
        await asyncio.gather(self._task, return_exceptions=True)
        if self.connection is not None:
            await self.connection.done.wait()

    def cut(self) -> None:
        """Start to close: whoever waits for an answer is told in the next tick that it is lost."""
        self._task.cancel()
        if self.connection is not None:
            self.connection.abort("the router gave up this connection")
