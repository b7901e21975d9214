"""uvicorn around the protocol and the app, in a loop that runs already and on sockets that are given."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.server import Server

from kubeactor.ingress.protocol import KEEP_ALIVE_S, Listener
from kubeactor.ingress.state import Ingress

__all__ = ["serve"]

BACKLOG: Final = 2048


class _Server(Server):
    """Leaves the signals to the process that embeds it, tells when it accepts connections, ends within the grace."""

    def __init__(
        self,
        config: Config,
        listener: Listener,
        stop: asyncio.Event,
        grace_s: float,
        on_start: Callable[[], None],
        on_stop: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self._listener = listener
        self._stop = stop
        self._grace_s = grace_s
        self._on_start = on_start
        self._on_stop = on_stop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and tell."""
        await super().startup(sockets)
        await self.on_tick(0)  # the date header of the first response
        self._on_start()

    async def main_loop(self) -> None:
        """uvicorn's, which looks every 0.1 s whether to end; here it ends at once."""
        ticking = asyncio.create_task(super().main_loop())
        await self._stop.wait()
        ticking.cancel()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let running requests end, then cut their connections, so that none gets a 500 for being cancelled."""
        loop = asyncio.get_running_loop()
        timer = loop.call_later(self._grace_s, self._listener.abort)
        loop.call_soon(self._on_stop)  # when uvicorn has closed what listens, which it does before it waits
        await super().shutdown(sockets)
        timer.cancel()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


async def serve(
    sockets: Sequence[socket.socket],
    app: ASGIApp,
    ingress: Ingress,
    *,
    stop: asyncio.Event,
    fast: bool = True,
    grace_s: float = 1.0,
    keep_alive_s: float = KEEP_ALIVE_S,
    started: Callable[[], None] = lambda: None,
    stopping: Callable[[], None] = lambda: None,
    on_listener: Callable[[Listener], None] = lambda listener: None,
) -> None:
    """Serve until `stop` is set, then end gracefully.

    Args:
        stop: set by the embedding code.
        sockets: bound and closed at the end; hand in duplicates to keep them.
        app: of `make_app`.
        ingress: the one that the app was made with.
        fast: whether plain calls of `/v1` take the fast path; False where the app does not serve `/v1`.
        grace_s: how long running requests may go on after `stop`; then their connections are cut.
        keep_alive_s: how long a connection may be idle.
        started: called when connections are accepted.
        stopping: called when none are accepted any more, and no more requests are read; those that run go on.
        on_listener: called with what joins the connections, for those who watch them.

    Raises:
        RuntimeError: when the lifespan of the front door failed; its log tells why.
    """
    listener = Listener(ingress, fast=fast, keep_alive_s=keep_alive_s)
    on_listener(listener)
    config = Config(
        app,
        http=listener.protocol,  # type: ignore[arg-type]
        ws="none",
        loop="none",
        interface="asgi3",
        lifespan="auto",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=grace_s,  # type: ignore[arg-type]  # counts from 0.1 s later
    )
    server = _Server(config, listener, stop, grace_s, started, stopping)
    try:
        await server.serve(list(sockets))
    except SystemExit as error:
        raise RuntimeError("the front door's lifespan failed at startup") from error
    finally:
        listener.abort()
        for sock in sockets:
            sock.close()
