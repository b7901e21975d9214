"""Where a process gets its identity, credentials and placement from: a data folder, or a pod's surroundings."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

from kubeactor.namespace import Namespace
from kubeactor.placement import Table
from kubeactor.placement_file import Placement, PlacementWatcher, load
from kubeactor.pod.follow import PodFollower, kept
from kubeactor.pod.identity import Pod, PodError
from kubeactor.pod.peers import Peers
from kubeactor.worker import WorkerFatalError

__all__ = ["Follower", "Site"]


class Follower(Protocol):
    """Keeps a process at the newest placement."""

    @property
    def trouble(self) -> str:
        """Why what is known may not be the newest, one sentence; empty if nothing is wrong."""

    async def run(self) -> None:
        """Follow until cancelled."""

    async def seen(self) -> None:
        """Wait until the placement was looked at once, and what follows from it is done."""

    def keep(self) -> None:
        """See to it that the next process starts with what is known here."""


class Site(NamedTuple):
    """The surroundings of a worker.

    Attributes:
        namespace: its identity and its folder.
        pod: who it is in Kubernetes; None on a machine of one's own.
        peers: the shared secret; None where everybody is let in.
    """

    namespace: Namespace
    pod: Pod | None = None
    peers: Peers | None = None

    @classmethod
    def of(cls, folder: str, *, kubernetes: bool, host: bool) -> Site:
        """Look around.

        Raises:
            WorkerFatalError: when the folder, the environment or the credentials can't be used.
        """
        if not kubernetes:
            return cls(Namespace(Path(folder)))
        try:
            pod = Pod.of(os.environ, host=host)
            return cls(Namespace(Path(folder), pod.shards, pod.uid), pod, Peers(pod.peer_dir))
        except PodError as error:
            raise WorkerFatalError(str(error)) from error

    @property
    def credentials(self) -> bytes:
        """What to say to a host."""
        return self.peers.current if self.peers else b""

    @property
    def accepted(self) -> tuple[bytes, ...]:
        """What a host accepts."""
        return self.peers.accepted if self.peers else (b"",)

    def last(self) -> Placement | None:
        """The placement that is stored.

        Raises:
            PlacementError: when it is damaged and nobody else has it.
        """
        path = self.namespace.placement
        if self.pod is not None:
            return kept(path, self.pod)
        return load(path) if path.exists() else None

    def empty(self) -> Placement:
        """The placement before there is any."""
        return Placement(Table.empty(self.namespace.uid, self.namespace.shards), {})

    def follower(self, last: Placement | None, changed: Callable[[Placement], None]) -> Follower:
        """What keeps the process at the newest placement, after the last one."""
        if self.pod is None:
            return PlacementWatcher(self.namespace.placement, changed)
        return PodFollower(self.pod, self.namespace.placement, last, changed)
