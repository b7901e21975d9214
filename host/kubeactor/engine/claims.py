"""What the placement table says of this host, against what its volume holds.

The volume decides what exists, the table who serves it. A volume that the table does not record, or a shard that it
gives to somebody else, is not served: not even its alarms run. What the table gives to this host and the volume does
not hold is refused call by call, never begun empty.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from kubeactor.placement import Table

if TYPE_CHECKING:
    from kubeactor.engine.engine import Engine

__all__ = ["Claims", "Verdict", "judge"]


class Verdict(NamedTuple):
    """What follows from a table.

    Attributes:
        served: shard -> epoch of what is to be served.
        lifted: shards whose stored epoch is below the one under which the table gives them to this host, with that.
        trouble: one sentence when table and volume contradict each other, else empty.
    """

    served: dict[int, int]
    lifted: list[tuple[int, int]]
    trouble: str


def judge(table: Table, host: str, volume: str, owned: Mapping[int, int]) -> Verdict:
    """What a host may serve.

    Args:
        table: the newest one.
        host: its id; volume: the id of its volume.
        owned: shard -> epoch that the volume holds as its own.
    """
    recorded = table.volumes.get(host)
    if recorded not in (None, volume):
        return Verdict(
            {},
            [],
            f"VolumeLost: the placement table records volume {recorded} for {host}, and this is volume {volume};"
            " restore it from a backup, or give its data up with `kubeactor forget`",
        )
    served, lifted = {}, []
    for shard, epoch in owned.items():
        owner = table.owner(shard)
        if table.epoch(shard) < epoch or owner == (host, epoch):  # the table may be behind a grant
            served[shard] = epoch
        elif owner is not None and owner[0] == host:
            served[shard] = owner[1]
            lifted.append((shard, owner[1]))
    missing = [shard for shard in table.shards_of(host) if shard not in served]
    trouble = f"the placement table gives {host} {len(missing)} shards that its volume does not hold" if missing else ""
    return Verdict(served, lifted, trouble)


class Claims:
    """Applies tables to an engine.

    Attributes:
        trouble: see `Verdict`.
    """

    def __init__(self, engine: Engine, restart: Callable[[str], object]) -> None:
        """`restart` ends the worker; the next one begins without what this one may not serve any more."""
        self.trouble = ""
        self._engine = engine
        self._restart = restart

    def apply(self, table: Table) -> None:
        """Go by this table."""
        engine = self._engine
        owned = engine.volume.owned()
        verdict = judge(table, engine.host_id, engine.volume_id, owned)
        self.trouble = verdict.trouble
        if verdict.lifted:
            engine.volume.lift(verdict.lifted)
        gone = engine.epochs.keys() - verdict.served.keys()
        new = [shard for shard in verdict.served if shard not in engine.epochs]
        for shard in gone:
            del engine.epochs[shard]
        engine.epochs.update(verdict.served)
        if engine.env is None:
            return
        if gone:  # its alarms and messages are in memory: only a new worker is sure to run none of them
            self._restart(f"{len(gone)} of its shards are not this host's any more")
        for part in (engine.parked, engine.alarms, engine.outbox):
            part.load(new)
