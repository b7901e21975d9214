"""What stands behind the HTTP side of a process, from its start on: for health, metrics and what is parked."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from prometheus_client import CollectorRegistry

from kubeactor.call import Reply
from kubeactor.engine.check import Checks
from kubeactor.engine.claims import Claims
from kubeactor.engine.cycles import Probe
from kubeactor.engine.engine import Engine
from kubeactor.engine.store import StoreError
from kubeactor.engine.volume import VolumeMismatchError
from kubeactor.host import HostServer
from kubeactor.ingress.state import Ingress
from kubeactor.metrics import make_registry
from kubeactor.parked import Item, Keeper, Keepers, Retry
from kubeactor.placement_file import Placement
from kubeactor.router import Router
from kubeactor.site import Follower, Site
from kubeactor.standby import Standby
from kubeactor.worker import WorkerContext

__all__ = ["Behind", "HostEngine", "opened", "registry"]

REOPEN_S: Final = 0.25
OTHERS_S: Final = 5.0  # a volume that is somebody else's: only another one helps
SEEN_S: Final = 2.0

log = logging.getLogger("kubeactor.process")


class Behind:
    """What stands behind the HTTP side of a process: nobody at first, then an engine, a router, or a host's both.

    Attributes:
        closed: why the volume could not be opened at the last attempt.
        claims: what the table says against the volume, on a host in a pod.
        leaving: whether the process is about to end, and serves only who has not noticed yet.
    """

    def __init__(self, context: WorkerContext, site: Site) -> None:
        self.standby = Standby(asyncio.get_running_loop(), site.namespace.shards)
        self.engine: Engine | None = None
        self.router: Router | None = None
        self.closed: StoreError | None = None
        self.claims: Claims | None = None
        self.leaving = False
        self._context = context
        self._site = site
        self._follower: Follower | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._drained = False

    def stand(self, engine: Engine | None, router: Router | None) -> None:
        """They are there."""
        self.engine, self.router = engine, router

    def follow(self, last: Placement | None, server: HostServer | None = None) -> None:
        """Go by the newest placement from now on, and by the newest credentials.

        Args:
            last: the stored one, by which the router was made.
            server: the listening side, of a host.
        """
        router, peers = self.router, self._site.peers
        assert router is not None

        def renewed() -> None:
            router.use_credentials(self._site.credentials)
            if server is not None:
                server.credentials = self._site.accepted

        self._follower = self._site.follower(last, self._placed)
        self._keep(self._follower.run())
        if peers is not None:
            self._keep(peers.run(renewed))

    async def placed(self) -> None:
        """Wait until the newest placement is gone by; without an API server to tell it, 2 s, then the kept one is.

        The table that a restored volume brings along may call this host the owner of shards that were given anew since.
        """
        assert self._follower is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SEEN_S):
                await self._follower.seen()

    def begin_anew(self, why: str) -> None:
        """End this worker; the next one starts from the table that this one goes by.

        From an older one it would serve what was lost, and end again when it learns of that.
        """
        assert self._follower is not None
        self._follower.keep()
        self._context.fail(why)

    def _placed(self, placement: Placement) -> None:
        assert self.router is not None
        changed = placement.table != self.router.table
        self.router.update(*placement)
        if self.claims is not None and changed:
            self.claims.apply(placement.table)

    def _keep(self, main: Coroutine[Any, Any, None]) -> None:
        """Run it as long as this process; without it nothing would ever change here, so its end is the worker's."""

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled():
                log.critical("%s ended", task.get_coro(), exc_info=task.exception())
                self._context.fail(f"what follows changes ended: {task.exception()!r}")

        task = asyncio.create_task(main)
        task.add_done_callback(ended)
        self._tasks.append(task)

    def trouble(self) -> str | None:
        """Why the process can't serve, or None.

        Hosts that a router can't reach are no reason: their calls are parked, and those of all others go on.
        """
        if self.leaving:
            return "going down"
        if self.engine is not None:
            return self.engine.ready() or (self.claims.trouble if self.claims else None) or None
        if self.router is None:
            return self.standby.reason
        placed = self._site.pod is None or self.router.table.volumes
        return None if placed or self._follower is None else self._follower.trouble or "waiting for the placement"

    def notes(self) -> str:
        """What `/readyz` adds, a line each: deaths, a full disk, hosts that can't be reached, what is not followed."""
        lines = []
        if self._context.restarts:
            lines.append(f"worker restarted {self._context.restarts} times, last: {self._context.last_death}")
        if self.engine is not None and self.engine.disk_full:
            free, total = self.engine.store.free_bytes()
            lines.append(
                f"the disk is nearly full ({free >> 20} MiB of {total >> 20} MiB are free): turns that grow the data"
                " are refused; delete data or grow the volume"
            )
        if self.router is not None and self.engine is None:
            lines += [f"{host} can't be reached: {why}" for host, why in self.router.trouble().items()]
        followed = self._follower.trouble if self._follower else ""
        lines += [one for one in (followed, self._site.peers and self._site.peers.trouble) if one]
        return "".join(f"{line}\n" for line in lines)

    def keepers(self) -> Keepers | None:
        """Who knows what is parked."""
        if self.router is not None:
            return self.router
        return None if self.engine is None else _Embedded(self.engine)

    async def drain(self, grace_s: float) -> None:
        """Let running turns end within the grace, close the engine."""
        if self.engine is not None and not self._drained:
            self._drained = True
            await self.engine.close(grace_s)

    async def close(self, grace_s: float) -> None:
        """Close all; turns may end within the grace."""
        for task in self._tasks:
            task.cancel()
        await self.drain(grace_s)
        if self.router is not None:
            await self.router.close()


async def opened(behind: Behind, open_engine: Callable[[], Engine]) -> Engine:
    """The engine, as soon as the volume can be opened; a failing disk may heal, a dying process lets go of the lock."""
    while True:
        try:
            return open_engine()
        except StoreError as error:
            if str(error) != behind.standby.reason:
                log.error("%s; trying again", error)
            behind.standby.reason, behind.closed = str(error), error
            await asyncio.sleep(OTHERS_S if isinstance(error, VolumeMismatchError) else REOPEN_S)


class _Embedded:
    """What is parked here, where there is only this host."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def list_parked(self) -> list[Item]:
        return self._engine.parked.items()

    async def retry_parked(self, retry: Retry) -> bool:
        return self._engine.parked.retry(retry)


class HostEngine:
    """The engine as a host server sees it: probes are frames of bytes there."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.submit = engine.submit
        self.inventory = engine.inventory
        self.shards = engine.shards
        self.namespace_uid = engine.namespace_uid
        self.host_id = engine.host_id
        self.volume_id = engine.volume_id
        self.parked: Keeper = engine.parked
        self._checks = Checks(engine)

    def grant(self, shards: Sequence[tuple[int, int]]) -> None:
        """Part of Owner."""
        self._engine.grant(list(shards))

    def check(self, shard: int, epoch: int, reply: Reply) -> None:
        """Part of Owner."""
        self._checks.run(shard, epoch, reply)

    def probe(self, shard: int, body: bytes, reply: Callable[[bytes | Any], None]) -> None:
        """Part of Owner."""
        self._engine.cycles.receive(Probe.decode(body))
        reply(b"")


def registry(context: WorkerContext, behind: Behind, ingress: Ingress | None = None) -> CollectorRegistry:
    """What `/metrics` of this process shows."""
    return make_registry(
        engine=[_Later(lambda: behind.engine and behind.engine.stats)],
        router=[_Later(lambda: behind.router and behind.router.stats), _Later(lambda: behind.router)],
        worker=[_Restarts(context)],
        ingress=ingress.stats if ingress else None,
    )


class _Later:
    """The counters of a part, once it is there."""

    def __init__(self, part: Callable[[], object]) -> None:
        self._part = part

    def __getattr__(self, name: str) -> Any:
        return getattr(self._part(), name, None)


class _Restarts:
    """What the supervisor knows of this worker and those before it."""

    def __init__(self, context: WorkerContext) -> None:
        self._quarantine = context.quarantine
        self.restarts = context.restarts
        self.last_death = {context.last_death: 1} if context.last_death else {}

    @property
    def quarantined(self) -> int:
        """Instances that killed their worker three times."""
        return len(self._quarantine.entries())
