"""Keeps a process in a pod at the newest placement: the ActorPlacement and the EndpointSlices of the hosts.

Whatever happens to the API server, the last placement stays in use, and in a file, with which a process starts when
there is nobody to ask.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from kubeactor.placement import PlacementError
from kubeactor.placement_file import Placement, load, save
from kubeactor.pod.api import ApiProblem, Reflector, Selection, api_client
from kubeactor.pod.identity import Pod
from kubeactor.pod.view import View

__all__ = ["PodFollower", "kept"]

API: Final = "/apis/kubeactor.io/v1alpha1"
RETRY_S: Final = 5.0

log = logging.getLogger(__name__)


class PodFollower:
    """Follows the API server.

    Attributes:
        current: the placement in use; at first the one of the file, or None.
    """

    def __init__(self, pod: Pod, path: Path, last: Placement | None, changed: Callable[[Placement], None]) -> None:
        """Made before `run`.

        Args:
            pod: whose namespace it is.
            path: of the file that keeps the last placement.
            last: what the file held at the start.
            changed: called by `run` with each placement that is not the current one.
        """
        self.current = last
        self._path = path
        self._changed = changed
        self._view = View(pod, self.current)
        self._login = ""
        self._dirty = asyncio.Event()
        self._seen = asyncio.Event()
        self._keeping = threading.Lock()
        under = f"namespaces/{pod.namespace}"
        self._reflectors = (
            Reflector(
                Selection(f"{API}/{under}/actorplacements", {"fieldSelector": f"metadata.name={pod.name}"}),
                self._placed,
            ),
            Reflector(
                Selection(
                    f"/apis/discovery.k8s.io/v1/{under}/endpointslices",
                    {"labelSelector": f"kubernetes.io/service-name={pod.name}-host"},
                ),
                self._located,
            ),
        )

    @property
    def trouble(self) -> str:
        """Why the placement may not be the newest, one sentence; empty if nothing is wrong."""
        return self._view.trouble or self._login or next((r.trouble for r in self._reflectors if r.trouble), "")

    async def run(self) -> None:
        """Follow until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep())
            tasks.create_task(self._follow())

    async def _follow(self) -> None:
        while True:
            try:
                async with api_client() as api:
                    self._login = ""
                    await asyncio.gather(*(reflector.run(api) for reflector in self._reflectors))
            except ApiProblem as error:
                if str(error) != self._login:
                    log.warning("%s; going on with what is known", error)
                self._login = str(error)
                await asyncio.sleep(RETRY_S)

    def _placed(self, items: list[dict[str, Any]]) -> None:
        before = self._view.trouble
        self._view.placed(items)
        if self._view.trouble and self._view.trouble != before:
            log.error("%s; going on with the last good one", self._view.trouble)
        self._tell()
        self._seen.set()

    def _located(self, items: list[dict[str, Any]]) -> None:
        self._view.located(items)
        self._tell()

    def _tell(self) -> None:
        placement = self._view.placement()
        if placement is not None and placement != self.current:
            self.current = placement
            self._dirty.set()
            self._changed(placement)

    async def seen(self) -> None:
        """Wait until the API server has said once what placement there is, and `changed` knows of it."""
        await self._seen.wait()

    async def _keep(self) -> None:
        """Write the newest placement into the file. In a thread, since that waits for the disk."""
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            await asyncio.to_thread(self.keep)

    def keep(self) -> None:
        """Write the current placement into the file; a disk that has no room for it is only told of. Any thread may."""
        with self._keeping:  # so that the newest is written last, and whole
            if self.current is None:
                return
            try:
                save(self._path, *self.current)
            except (OSError, PlacementError) as error:
                log.error("the placement can't be kept in %s: %s", self._path, error)


def kept(path: Path, pod: Pod) -> Placement | None:
    """The placement that the file keeps; None when it keeps none of this namespace, or is damaged."""
    if not path.exists():
        return None
    try:
        found = load(path)
    except PlacementError as error:
        log.warning("%s; it is left alone until there is a new one", error)
        return None
    if (found.table.namespace, found.table.shards) != (pod.uid, pod.shards):
        log.warning("%s is the table of another namespace, %s; it is not used", path, found.table.namespace)
        return None
    return found
