"""What the objects of the API server add up to: the placement table and the addresses of the hosts. No I/O.

A table is a cache of what lies on the volumes, so one that can't be right is refused, and the last good one stays in
use: another namespace's, one of a newer format, one that goes back behind an epoch that is known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from kubeactor.placement import FORMAT, Document, PlacementError, Table
from kubeactor.placement_file import Placement
from kubeactor.pod.identity import Pod, host_of

__all__ = ["FRAMES_PORT", "View", "addresses_of", "table_of"]

FRAMES_PORT: Final = 7000
FRAMES: Final = "frames"

Object = Mapping[str, Any]


def table_of(item: Object, pod: Pod, known: Table | None) -> Table:
    """The table of an `ActorPlacement`.

    Args:
        item: the object as the API server gives it.
        pod: whose namespace it must be.
        known: the newest table so far.

    Raises:
        PlacementError: when it can't be used; one sentence.
    """
    spec = item.get("spec")
    if not isinstance(spec, dict):
        raise PlacementError("it has no spec")
    # Before all else is read: a newer format may have other fields.
    if isinstance(found := spec.get("format"), int) and found > FORMAT:
        raise PlacementError(f"the table has format {found}; this kubeactor reads format {FORMAT}")
    try:
        table = Table.of(msgspec.convert(spec, Document))
    except msgspec.ValidationError as error:
        raise PlacementError(f"not a placement table: {error}") from error
    if table.namespace != pod.uid:
        raise PlacementError(f"it is the table of namespace uid {table.namespace}, and this one is {pod.uid}")
    if table.shards != pod.shards:
        raise PlacementError(f"it has {table.shards} shards, and the namespace {pod.shards}; that never changes")
    if known is not None:
        _refuse_older(table, known)
    return table


def _refuse_older(table: Table, known: Table) -> None:
    for shard in range(known.shards):
        before, now = known.owner(shard), table.owner(shard)
        if table.epoch(shard) < known.epoch(shard):
            raise PlacementError(
                f"it is older than what is known here: shard {shard} has epoch {table.epoch(shard)} in it,"
                f" and {known.epoch(shard)} here"
            )
        if before and now and before[1] == now[1] and before[0] != now[0]:
            raise PlacementError(f"shard {shard} went from {before[0]} to {now[0]} under the same epoch {now[1]}")


def addresses_of(slices: Iterable[Object], pod: Pod) -> dict[str, str]:
    """Host id -> "address:port" by the EndpointSlices of the hosts' headless Service, ready or not.

    While a pod is replaced it may be listed twice: the one that does not end counts.
    """
    found: dict[str, tuple[tuple[bool, bool], str]] = {}
    for item in slices:
        port = next((p.get("port") for p in item.get("ports") or () if p.get("name") == FRAMES), None) or FRAMES_PORT
        for endpoint in item.get("endpoints") or ():
            target = endpoint.get("targetRef") or {}
            host = host_of(pod.name, target.get("name") or endpoint.get("hostname") or "")
            address = next(iter(endpoint.get("addresses") or ()), None)
            if host is None or address is None:
                continue
            conditions = endpoint.get("conditions") or {}
            rank = (not conditions.get("terminating"), bool(conditions.get("ready")))
            if host not in found or rank > found[host][0]:
                found[host] = (rank, f"[{address}]:{port}" if ":" in address else f"{address}:{port}")
    return {host: address for host, (_, address) in sorted(found.items())}


class View:
    """The newest placement that events add up to.

    Attributes:
        table: the newest good table; None before the first.
        trouble: why the object that is there now is not in use, one sentence; empty if it is.
    """

    def __init__(self, pod: Pod, known: Placement | None = None) -> None:
        self.table = known.table if known else None
        self.trouble = "" if known else self._missing(pod)
        self._pod = pod
        self._addresses = dict(known.addresses) if known else {}

    @staticmethod
    def _missing(pod: Pod) -> str:
        return f"there is no ActorPlacement {pod.name} yet"

    def placed(self, items: Iterable[Object]) -> None:
        """All ActorPlacements of the namespace's name that there are: one, or none."""
        item = next((one for one in items if one["metadata"]["name"] == self._pod.name), None)
        if item is None:
            self.trouble = self._missing(self._pod) if self.table is None else "its ActorPlacement is gone"
            return
        try:
            self.table = table_of(item, self._pod, self.table)
            self.trouble = ""
        except PlacementError as error:
            self.trouble = f"ActorPlacement {self._pod.name} is not used: {error}"

    def located(self, items: Iterable[Object]) -> None:
        """All EndpointSlices of the hosts' Service.

        A host that they leave out stays where it was: when somebody deletes the Service, the hosts are still there.
        """
        self._addresses |= addresses_of(items, self._pod)

    def placement(self) -> Placement | None:
        """The table and where its hosts are: by their EndpointSlices, else by the DNS names of their pods."""
        if self.table is None:
            return None
        return Placement(
            self.table, {host: self._addresses.get(host) or self._dns(host) for host in self.table.volumes}
        )

    def _dns(self, host: str) -> str:
        name = self._pod.name
        return f"{name}-{host}.{name}-host.{self._pod.namespace}.svc:{FRAMES_PORT}"
