"""The placement table from what lies on the volumes: as it is published, and brought up to what hosts report.

The table is a cache. Per shard, the truth is the highest epoch that a volume reports for it:

| reported | the table then says |
| --- | --- |
| by one host, above the table's epoch | that host, that epoch: a grant that was not published, or an older table |
| by two hosts at the same epoch | nobody: both might be a copy |
| given away at a higher epoch than anybody holds it | nobody: the one that has it has not reported |
| by nobody, though the table names an owner | as before; its calls get 503, and the owner is told of as lost |

Hosts and ingresses keep the last table that they saw, and tell it. One that is lost is taken from them, so it names the
owners and volumes that it named. They refuse a table that goes behind an epoch which they know. So what any of them
knows at a higher epoch than is published or reported counts, as soon as the host that had the shard there reports: if
it is back with the volume that is published, the shard stays with its owner, above that epoch, which the owner stores
when it sees the table; if it is not, the shard is lost with the volume that the higher epoch was on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import msgspec

from kubeactor import placement as tables
from kubeactor.placement import Document, PlacementError, Table
from kubeactor_operator import conditions, names
from kubeactor_operator.draft import Draft
from kubeactor_operator.observed import Inventory, Known, Observed

__all__ = ["GIVEN", "Placed", "merged", "ordinal", "read", "recalled", "shard_text"]

GIVEN: Final = "given"


@dataclass(frozen=True)
class Placed:
    """What the rest of the plan needs to know.

    Attributes:
        table: as it is published, None if there is none or it can't be read.
        readable: False when the table is there but not for this operator: then nothing may be planned.
    """

    table: Table | None
    readable: bool = True

    @property
    def owners(self) -> dict[str, int]:
        """Host -> how many shards it owns."""
        counts: dict[str, int] = {}
        for shard in range(self.table.shards if self.table else 0):
            assert self.table
            if owner := self.table.owner(shard):
                counts[owner[0]] = counts.get(owner[0], 0) + 1
        return counts

    @property
    def whole(self) -> bool:
        """Whether every shard has an owner."""
        return self.table is not None and all(self.table.owner(shard) for shard in range(self.table.shards))

    @property
    def ownerless(self) -> list[int]:
        """Shards that were granted once and belong to nobody."""
        table = self.table
        return [s for s in range(table.shards) if table.epoch(s) and not table.owner(s)] if table else []


def read(draft: Draft) -> Placed:
    """The published table."""
    observed = draft.observed
    live = observed.child(names.PLACEMENT_KIND, observed.namespace.name)
    if live is None:
        return Placed(None)
    if not observed.owned(live):
        draft.trouble(
            conditions.NAME_CONFLICT,
            f"{names.PLACEMENT_KIND} {observed.namespace.name} exists and does not belong to this namespace",
            stalled=True,
        )
        return Placed(None, readable=False)
    spec = live.get("spec") or {}
    if isinstance(spec.get("format"), int) and spec["format"] > tables.FORMAT:
        draft.trouble(
            conditions.PLACEMENT_TOO_NEW,
            f"the table has format {spec['format']}, this operator reads format {tables.FORMAT}: upgrade the operator",
            stalled=True,
        )
        return Placed(None, readable=False)
    try:
        document = msgspec.convert(spec, Document)
        return Placed(Table.of(document) if _is_ours(observed, document) else None)
    except (PlacementError, msgspec.ValidationError):
        return Placed(None)  # a table that contradicts itself is as good as none: the volumes know


def recalled(observed: Observed) -> list[Table]:
    """The tables that hosts and ingresses go by, the newest first."""
    found = [_empty(observed)]
    for one in (*observed.inventories.values(), *observed.ingresses.values()):
        if isinstance(one, Known) and one.table and _is_ours(observed, one.table):
            with suppress(PlacementError):  # of another release: what it has is published, or on the volumes
                found.append(Table.of(one.table))
    return sorted(found, key=lambda table: sum(table.epoch(s) for s in range(table.shards)), reverse=True)


def _empty(observed: Observed) -> Table:
    return Table.empty(observed.namespace.uid, observed.namespace.spec.shards)


def _is_ours(observed: Observed, document: Document) -> bool:
    return (document.namespace, document.shards) == (observed.namespace.uid, observed.namespace.spec.shards)


def merged(
    table: Table, reports: Mapping[str, Inventory], recalled: Sequence[Table], *, whole: bool
) -> tuple[Table, list[str]]:
    """The table brought up to what lies on the volumes; and a sentence for each shard that two hosts claim.

    Args:
        table: as it is known.
        reports: of the hosts that answer.
        recalled: what hosts and ingresses go by.
        whole: whether these are all: else one that claims the same shard may be silent.
    """
    owners = [(table.owner(s) or (None,))[0] for s in range(table.shards)]
    epochs = [table.epoch(s) for s in range(table.shards)]
    volumes = dict(table.volumes)
    claims, given = _claims(table.shards, reports)
    contested: dict[tuple[str, ...], list[int]] = {}
    well = {host for host, report in reports.items() if table.volumes.get(host) == report.volume}
    for shard, holders in enumerate(claims):
        top, known = max(holders.values(), default=0), max(given[shard], *(one.epoch(shard) for one in recalled))
        best = tuple(sorted(host for host, epoch in holders.items() if epoch == top >= epochs[shard]))
        if known > max(top, epochs[shard]):
            newest = max(recalled, key=lambda one: one.epoch(shard))
            host = (newest.owner(shard) or (None,))[0] if given[shard] < known else None
            if given[shard] == known:
                owners[shard], epochs[shard] = None, known
            elif best == (owners[shard],) and owners[shard] in well:
                epochs[shard] = known + 1
            elif host is not None and host in reports and host not in well:
                owners[shard], epochs[shard], volumes[host] = host, known, newest.volumes[host]
            elif host is None or host in well:
                epochs[shard] = known + (owners[shard] is not None)
        elif not best or given[shard] > top:
            continue
        elif len(best) > 1:
            contested.setdefault(best, []).append(shard)
            owners[shard], epochs[shard] = None, top
        elif top > epochs[shard] or (owners[shard] is None and whole):
            owners[shard], epochs[shard] = best[0], top
            volumes[best[0]] = reports[best[0]].volume
    found = Table(table.namespace, volumes=volumes, owners=owners, epochs=epochs)
    return found, [
        f"{' and '.join(hosts)} both hold shards {shard_text(shards)}: they stay without an owner"
        for hosts, shards in sorted(contested.items())
    ]


def _claims(shards: int, reports: Mapping[str, Inventory]) -> tuple[list[dict[str, int]], list[int]]:
    claims: list[dict[str, int]] = [{} for _ in range(shards)]
    given = [0] * shards
    for host, report in reports.items():
        for shard, epoch, state in report.states:
            if not 0 <= shard < shards:
                continue
            if state == GIVEN:
                given[shard] = max(given[shard], epoch)
            else:
                claims[shard][host] = epoch
    return claims, given


def ordinal(host: str) -> int:
    """2 of host-2."""
    return int(host.rpartition("-")[2])


def shard_text(shards: list[int]) -> str:
    """Shards as ranges, such as 0-84,90; shortened, since they go into messages."""
    runs: list[list[int]] = []
    for shard in shards:
        if runs and shard == runs[-1][1] + 1:
            runs[-1][1] = shard
        else:
            runs.append([shard, shard])
    text = [str(a) if a == b else f"{a}-{b}" for a, b in runs]
    return ",".join(text[:8]) + (f" and {len(text) - 8} more ranges" if len(text) > 8 else "")
