"""Two hosts in one process: engines with routers that reach each other over loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from tests.harness.engine import LIMIT_S, NAMESPACE, Machine

from kubeactor import Actor
from kubeactor.engine.loop import new_event_loop
from kubeactor.host import HostServer
from kubeactor.ids import shard_of
from kubeactor.placement import Table
from kubeactor.processes import _HostEngine
from kubeactor.router import Router
from kubeactor.wire import HOST

SHARDS = 16
T = TypeVar("T")


class Hosts:
    """`host-0` owns the even shards, `host-1` the odd ones."""

    def __init__(self, folder: Path, *classes: type[Actor]) -> None:
        self.loop = new_event_loop()
        self.machines = [
            Machine(
                folder / f"host-{number}",
                *classes,
                shards=SHARDS,
                owned=lambda shard, number=number: shard % 2 == number,  # type: ignore[misc]
                host=f"host-{number}",
                loop=self.loop,
            )
            for number in (0, 1)
        ]
        self.routers: list[Router] = []
        self._servers: list[HostServer] = []

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

    async def _start(self) -> None:
        addresses = {}
        for number, machine in enumerate(self.machines):
            machine.start()
            listening = socket.socket()
            listening.bind(("127.0.0.1", 0))
            addresses[f"host-{number}"] = f"127.0.0.1:{listening.getsockname()[1]}"
            server = HostServer(_HostEngine(machine.engine), [listening])
            self._servers.append(server)
            await server.start()
        table = Table(
            NAMESPACE,
            volumes={f"host-{n}": machine.engine.volume_id for n, machine in enumerate(self.machines)},
            owners=[f"host-{shard % 2}" for shard in range(SHARDS)],
            epochs=[1] * SHARDS,
        )
        for number, machine in enumerate(self.machines):
            router = Router(table, addresses, local=machine.engine, local_host=f"host-{number}", role=HOST)
            machine.engine.dispatcher = router
            machine.engine.send_probe = _prober(router)
            self.routers.append(router)

    async def _stop(self) -> None:
        for machine, server, router in zip(self.machines, self._servers, self.routers, strict=True):
            await machine.stop()
            await server.close()
            await router.close()


def _prober(router: Router) -> Any:
    return lambda shard, probe: router.probe(shard, probe.encode(), lambda answer: None)
