"""What a host or an ingress in a pod tells the operator, and a host does for it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kubeactor.engine.store import DiskFullError, StoreBusyError, StoreError, WriteStallError, free_bytes
from kubeactor.engine.volume import FORMAT, ForeignVolumeError, VolumeMismatchError
from kubeactor.errors import ActorOverloadedError, ActorShardUnavailableError
from kubeactor.ingress.internal import Unopened
from kubeactor.pod.peers import Peers
from kubeactor.quarantine import Quarantine
from kubeactor.wire import VERSION

if TYPE_CHECKING:
    from kubeactor.behind import Behind
    from kubeactor.engine.engine import Engine

__all__ = ["HostReport", "known"]

# Why the volume is not open, as one word.
REASONS: Final[tuple[tuple[type[StoreError], str], ...]] = (
    (StoreBusyError, "VolumeInUse"),
    (ForeignVolumeError, "VolumeOfAnotherNamespace"),
    (VolumeMismatchError, "VolumeOfAnotherHost"),
    (DiskFullError, "VolumeFull"),
    (StoreError, "VolumeUnreadable"),
)


def known(behind: Behind, peers: Peers) -> dict[str, Any]:
    """What this process goes by: the credentials, the one that it presents first, and the placement table."""
    table = behind.router.table.document() if behind.router is not None else None
    return {"credentials": peers.fingerprints, "table": table}


class HostReport:
    """Part of `HostSide`."""

    def __init__(self, behind: Behind, peers: Peers, quarantine: Quarantine, folder: Path) -> None:
        """`folder`: on the volume."""
        self._behind = behind
        self._folder = folder
        self._peers = peers
        self._quarantine = quarantine

    def inventory(self) -> dict[str, Any]:
        """What lies on the volume, and how it is.

        Raises:
            Unopened: while it is not open.
        """
        engine = self._engine()
        return {
            "namespace": engine.namespace_uid,
            "host": engine.host_id,
            "volume": engine.volume_id,
            "shards": engine.shards,
            "version": metadata.version("kubeactor"),
            "protocol": VERSION,
            "format": FORMAT,
            "states": engine.inventory(),
            "parked": engine.parked.alarms + engine.parked.messages,
            "quarantined": len(self._quarantine.entries()),
            "disk": self._disk(full=engine.store.nearly_full()),
            "trouble": self._behind.trouble(),
            **known(self._behind, self._peers),
        }

    def grant(self, volume: str, grants: Sequence[tuple[int, int]]) -> None:
        """Begin these (shard, epoch) empty, if this is the volume that they were decided for.

        Raises:
            Unopened: while the volume is not open.
            ActorOverloadedError: when the disk is behind; nothing was granted.
            ValueError: when it is another one, which would come back as an empty bank; when a shard is known at
                another epoch.
        """
        engine = self._engine()
        if volume != engine.volume_id:
            raise ValueError(f"the grant is for volume {volume[:80]}, and this is volume {engine.volume_id}")
        try:
            engine.grant(list(grants))
        except WriteStallError as error:
            raise ActorOverloadedError(f"nothing was granted: {error}") from error
        except StoreError as error:
            engine.fail(str(error))
            raise Unopened("VolumeUnreadable", ActorShardUnavailableError(str(error))) from error

    def _engine(self) -> Engine:
        behind = self._behind
        if behind.engine is not None and behind.engine.failure is None:
            return behind.engine
        why = behind.engine.failure if behind.engine is not None else behind.standby.reason
        disk = self._disk(full=True) if isinstance(behind.closed, DiskFullError) else None
        raise Unopened(reason_of(behind.closed), ActorShardUnavailableError(f"the volume is not open: {why}"), disk)

    def _disk(self, *, full: bool) -> dict[str, Any]:
        free, total = free_bytes(self._folder)
        return {"used_bytes": total - free, "free_bytes": free, "full": full}


def reason_of(closed: StoreError | None) -> str:
    """One word for why a volume is not open; None means that it was not tried yet."""
    return next((word for kind, word in REASONS if isinstance(closed, kind)), "Starting")
