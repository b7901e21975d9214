"""Two hosts in one process: engines with routers that reach each other over loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from tests.harness.engine import LIMIT_S, NAMESPACE, Machine

from kubeactor import Actor
from kubeactor.behind import HostEngine
from kubeactor.engine.loop import new_event_loop
from kubeactor.host import HostServer
from kubeactor.ids import shard_of
from kubeactor.placement import Table
from kubeactor.router import Router
from kubeactor.wire import HOST

SHARDS = 16
T = TypeVar("T")


class Hosts:
    """`host-0` owns the even shards, `host-1` the odd ones."""

    def __init__(self, folder: Path, *classes: type[Actor], **options: Any) -> None:
        self.loop = new_event_loop()
        self.machines = [
            Machine(
                folder / f"host-{number}",
                *classes,
                shards=SHARDS,
                owned=lambda shard, number=number: shard % 2 == number,  # type: ignore[misc]
                host=f"host-{number}",
                loop=self.loop,
                **options,
            )
            for number in (0, 1)
        ]
        self.routers: list[Router] = []
        self._servers: list[HostServer] = []
        self._sockets: list[socket.socket] = []

    def names(self, number: int, count: int) -> list[str]:
        """Names of instances that live on that host."""
        found = (f"n{i}" for i in range(1000) if shard_of(b"n%d" % i, SHARDS) % 2 == number)
        return [next(found) for _ in range(count)]

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Start both, run the test's coroutine, close."""

        async def limited() -> T:
            async with asyncio.timeout(LIMIT_S):
                await self._start()
                try:
                    return await main
                finally:
                    await self._stop()

        asyncio.set_event_loop(self.loop)
        try:
            return self.loop.run_until_complete(limited())
        finally:
            asyncio.set_event_loop(None)
            self.loop.close()

    async def crash(self, number: int) -> None:
        """Kill a host and start it again at its address, which its supervisor holds meanwhile."""
        server, router = self._servers[number], self.routers[number]
        for connection in list(server.connections.values()):
            connection.abort("killed by the test")
        machine = self.machines[number]
        machine.prepare = lambda engine: self._route(number, router.table)
        machine.crash()
        await server.close()
        await router.close()
        await self._listen(number)

    async def _start(self) -> None:
        for machine in self.machines:
            machine.start()
            self._sockets.append(socket.create_server(("127.0.0.1", 0)))
            self._servers.append(None)  # type: ignore[arg-type]
            self.routers.append(None)  # type: ignore[arg-type]
        table = Table(
            NAMESPACE,
            volumes={f"host-{n}": machine.engine.volume_id for n, machine in enumerate(self.machines)},
            owners=[f"host-{shard % 2}" for shard in range(SHARDS)],
            epochs=[1] * SHARDS,
        )
        for number in range(len(self.machines)):
            await self._listen(number)
            self._route(number, table)

    async def _listen(self, number: int) -> None:
        server = HostServer(HostEngine(self.machines[number].engine), [self._sockets[number].dup()])
        self._servers[number] = server
        await server.start()

    def _route(self, number: int, table: Table) -> None:
        addresses = {f"host-{n}": f"127.0.0.1:{sock.getsockname()[1]}" for n, sock in enumerate(self._sockets)}
        engine = self.machines[number].engine
        router = Router(table, addresses, local=engine, local_host=f"host-{number}", role=HOST)
        engine.dispatcher = router
        engine.send_probe = _prober(router)
        self.routers[number] = router

    async def _stop(self) -> None:
        for machine, server, router in zip(self.machines, self._servers, self.routers, strict=True):
            await machine.stop()
            await server.close()
            await router.close()
        for sock in self._sockets:
            sock.close()


def _prober(router: Router) -> Any:
    return lambda shard, probe: router.probe(shard, probe.encode(), lambda answer: None)
