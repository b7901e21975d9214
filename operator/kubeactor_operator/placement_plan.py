"""The placement table from what lies on the volumes: rebuilt when it is missing or behind, and grants for new shards.

The table is a cache. Per shard, the truth is the highest epoch that a volume reports for it:

| reported | the table then says |
| --- | --- |
| by one host, above the table's epoch | that host, that epoch: a grant that was not published, or an older table |
| by two hosts at the same epoch | nobody: both might be a copy |
| given away at a higher epoch than anybody holds it | nobody: the one that has it has not reported |
| by nobody, though the table names an owner | as before; its calls get 503, and the owner is told of as lost |

A shard is granted empty only while the namespace never had all its shards placed, had no volumes before it, and every
host has reported: a volume that is lost, emptied or not there yet must never come back as an empty bank. That all was
placed is in the status, and seen by the volumes too: the first table records them before any grant and names all owners
at once, so shards that are held without such a table were placed once, and so were the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Final

import msgspec

from kubeactor import placement as tables
from kubeactor.placement import Document, PlacementError, Table
from kubeactor_operator import conditions, names
from kubeactor_operator.actions import Create, Grant, Replace
from kubeactor_operator.children.placement import placement as manifest_of
from kubeactor_operator.draft import Draft
from kubeactor_operator.live import when
from kubeactor_operator.observed import Inventory, Observed

__all__ = ["Placed", "merged", "place", "read", "shard_text"]

GIVEN: Final = "given"
WRITE_EVERY_S: Final = 1.0
GATHER_S: Final = 60.0  # how long a rebuild waits for a pod that does not report, before it goes on without


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
        table = Table.of(msgspec.convert(spec, Document))
    except (PlacementError, msgspec.ValidationError):
        return Placed(None)  # a table that contradicts itself is as good as none: the volumes know
    if table.namespace != observed.namespace.uid or table.shards != observed.namespace.spec.shards:
        return Placed(None)
    return Placed(table)


def place(draft: Draft, placed: Placed) -> None:
    """Bring the table up to the volumes and grant what was never granted; at most one write a second."""
    observed = draft.observed
    hosts = _hosts(observed)
    if not placed.readable or not hosts:
        return
    reports = _reports(draft)
    silent = sorted(hosts - reports.keys(), key=_ordinal)
    if placed.table is None and not _may_rebuild(draft, silent):
        return
    known = placed.table or Table.empty(observed.namespace.uid, observed.namespace.spec.shards)
    table, contested = merged(known, reports, whole=not silent)
    for message in contested:
        draft.trouble(conditions.PLACEMENT_INCOMPLETE, message)
    table = _forgotten(draft, table, reports)
    _tell_lost(draft, table, reports)
    if any(not table.epoch(shard) for shard in range(table.shards)):
        table = _begin(draft, placed, table, reports, silent)
    _tell_ownerless(draft, table, silent)
    if placed.table is None or table != placed.table:
        _write(draft, table)


def _hosts(observed: Observed) -> set[str]:
    """All hosts that may hold shards: those with a claim, and those of the table."""
    return set(observed.claimed)


def _reports(draft: Draft) -> dict[str, Inventory]:
    """Inventories that are about this namespace; the others are told of."""
    namespace = draft.observed.namespace
    found = {}
    for host, inventory in draft.observed.inventories.items():
        if not isinstance(inventory, Inventory):
            continue
        if inventory.namespace != namespace.uid or inventory.shards != namespace.spec.shards or inventory.host != host:
            draft.trouble(
                conditions.VOLUMES_OF_ANOTHER_NAMESPACE,
                f"the volume of {host} belongs to {inventory.host} of namespace {inventory.namespace} with "
                f"{inventory.shards} shards",
                stalled=True,
            )
            continue
        found[host] = inventory
    return found


def _may_rebuild(draft: Draft, silent: list[str]) -> bool:
    """Whether all volumes have reported, or had their time to."""
    if not silent:
        return True
    draft.under_way(
        conditions.REBUILDING_PLACEMENT if draft.observed.status.get("shards") else conditions.CREATING,
        f"waiting for the volumes of {', '.join(silent)} to report what they hold",
        again_s=0.5,
    )
    stuck = [host for host in silent if _age(draft, host) > GATHER_S]
    return len(stuck) == len(silent) and any(
        isinstance(one, Inventory) and one.states for one in draft.observed.inventories.values()
    )


def _age(draft: Draft, host: str) -> float:
    pod = draft.pods.get(host)
    claim = draft.observed.claimed[host]
    since = pod.created_at if pod else when(claim["metadata"].get("creationTimestamp"))
    return draft.observed.now - since


def merged(table: Table, reports: Mapping[str, Inventory], *, whole: bool) -> tuple[Table, list[str]]:
    """The table brought up to what lies on the volumes; and a sentence for each shard that two hosts claim.

    Args:
        table: as it is known.
        reports: of the hosts that answer.
        whole: whether these are all: else one that claims the same shard may be silent.
    """
    owners = [(table.owner(s) or (None,))[0] for s in range(table.shards)]
    epochs = [table.epoch(s) for s in range(table.shards)]
    volumes = dict(table.volumes)
    claims, given = _claims(table.shards, reports)
    contested: dict[tuple[str, ...], list[int]] = {}
    for shard, holders in enumerate(claims):
        top = max(holders.values(), default=0)
        if given[shard] > max(top, epochs[shard]):
            owners[shard], epochs[shard] = None, given[shard]
            continue
        best = tuple(sorted(host for host, epoch in holders.items() if epoch == top))
        if not best or top < epochs[shard] or given[shard] > top:
            continue
        if len(best) > 1:
            contested.setdefault(best, []).append(shard)
            owners[shard], epochs[shard] = None, top
        elif top > epochs[shard] or (owners[shard] is None and whole):
            owners[shard], epochs[shard] = best[0], top
            volumes[best[0]] = reports[best[0]].volume
    found = Table(table.namespace, volumes=_listed(volumes, owners, table, reports), owners=owners, epochs=epochs)
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


def _listed(
    volumes: dict[str, str], owners: list[str | None], table: Table, reports: Mapping[str, Inventory]
) -> dict[str, str]:
    """Before the first shard has an owner all volumes are recorded, so that one that is exchanged is noticed."""
    if not table.volumes and not any(owners):
        return {host: report.volume for host, report in reports.items()}
    return volumes


def _forgotten(draft: Draft, table: Table, reports: Mapping[str, Inventory]) -> Table:
    """The user gave the data of a lost volume up: its shards begin anew on the new one, under a higher epoch."""
    host, _, volume = draft.observed.namespace.metadata.annotations.get(names.FORGET, "").partition(":")
    report, pod = reports.get(host), draft.pods.get(host)
    if not report or not pod or table.volumes.get(host) != volume or report.volume == volume:
        return table
    shards = table.shards_of(host)
    grants = tuple((shard, table.epoch(shard) + 1) for shard in shards)
    if grants and not _granted(report, grants):
        draft.actions.append(Grant(host, report.volume, pod.address, draft.credential, grants))
        draft.soon(0.1)
        return table
    epochs = [table.epoch(s) + (s in set(shards)) for s in range(table.shards)]
    owners = [(table.owner(s) or (None,))[0] for s in range(table.shards)]
    return Table(table.namespace, volumes={**table.volumes, host: report.volume}, owners=owners, epochs=epochs)


def _granted(report: Inventory, grants: tuple[tuple[int, int], ...]) -> bool:
    held = {(shard, epoch) for shard, epoch, state in report.states if state != GIVEN}
    return held.issuperset(grants)


def _tell_lost(draft: Draft, table: Table, reports: Mapping[str, Inventory]) -> None:
    name = draft.observed.namespace.name
    for host, report in sorted(reports.items()):
        owned = table.shards_of(host)
        held = {shard: epoch for shard, epoch, state in report.states if state != GIVEN}
        less = [shard for shard in owned if held.get(shard, 0) < table.epoch(shard)]
        if not less and table.volumes.get(host, report.volume) == report.volume:
            continue
        if not owned and report.states:
            continue
        draft.trouble(
            conditions.VOLUME_LOST,
            f"{host} came up with volume {report.volume} instead of {table.volumes.get(host)}, so its shards "
            f"{shard_text(owned)} answer 503: restore the volume from a backup, or give their data up with "
            f"`kubeactor forget {name} {host} --accept-data-loss`",
            stalled=True,
        )


def _begin(draft: Draft, placed: Placed, table: Table, reports: Mapping[str, Inventory], silent: list[str]) -> Table:
    """Grant shards that nobody ever had, once it is sure that nobody ever had them.

    What is granted follows from the published table alone, which is written by compare-and-swap and stays as it is
    until every host has stored its grants. So two leaders, of whom one is late, can't grant differently.
    """
    observed = draft.observed
    fresh = [shard for shard in range(table.shards) if not table.epoch(shard)]
    if observed.status.get("shards") or _inherited(observed) or _was_placed(placed, table):
        draft.trouble(
            conditions.PLACEMENT_INCOMPLETE,
            f"no volume holds shards {shard_text(fresh)}, which were placed once: they stay without an owner. Bring "
            "the missing volumes back, or restore them from a backup",
        )
        return table
    if placed.table is None or not placed.table.volumes:
        wanted = {f"host-{n}" for n in range(observed.namespace.spec.hosts.replicas)}
        if _missing(draft, wanted - reports.keys() | set(silent)) or not wanted:
            return table
        return table.with_volumes({host: reports[host].volume for host in wanted})
    base = placed.table
    exchanged = [host for host, report in reports.items() if base.volumes.get(host, report.volume) != report.volume]
    if _missing(draft, base.volumes.keys() - reports.keys()) or exchanged:
        return base
    ahead = False
    for host, grants in tables.plan(base, dict(base.volumes)).grants.items():
        if not _granted(reports[host], grants):
            ahead = True
            where = draft.pods[host].address
            draft.actions.append(Grant(host, reports[host].volume, where, draft.credential, grants))
    if ahead:
        draft.under_way(conditions.CREATING, "granting the new shards", again_s=0.05)
    return base


def _missing(draft: Draft, hosts: Set[str]) -> bool:
    if hosts:
        text = f"waiting for {', '.join(sorted(hosts, key=_ordinal))} to open its volume"
        draft.under_way(conditions.CREATING, text, again_s=0.5)
    return bool(hosts)


def _was_placed(placed: Placed, merged: Table) -> bool:
    """Whether this table follows one that is lost."""
    first = placed.table if placed.table and placed.table.volumes else merged
    return any(first.epoch(shard) for shard in range(first.shards))


def _inherited(observed: Observed) -> bool:
    """Whether there were volumes before this namespace."""
    since = when(observed.namespace.metadata.creation_timestamp)
    return any(when(claim["metadata"].get("creationTimestamp")) < since for claim in observed.claimed.values())


def _tell_ownerless(draft: Draft, table: Table, silent: list[str]) -> None:
    contested = any(trouble.reason == conditions.PLACEMENT_INCOMPLETE for trouble in draft.troubles)
    ownerless = [s for s in range(table.shards) if table.epoch(s) and not table.owner(s)]
    if ownerless and not contested:
        draft.trouble(
            conditions.PLACEMENT_INCOMPLETE,
            f"shards {shard_text(ownerless)} have no owner" + (f"; not seen: {', '.join(silent)}" if silent else ""),
        )


def _write(draft: Draft, table: Table) -> None:
    observed = draft.observed
    reason = conditions.REBUILDING_PLACEMENT if observed.status.get("shards") else conditions.CREATING
    draft.under_way(reason, "the table is being brought up to the volumes")
    wait = observed.table_written_at + WRITE_EVERY_S - observed.now
    live = observed.child(names.PLACEMENT_KIND, observed.namespace.name)
    if 0 < wait <= WRITE_EVERY_S:
        draft.soon(wait)
        return
    manifest = manifest_of(observed.namespace, msgspec.to_builtins(table.document()))
    draft.actions.append(Create(manifest) if live is None else Replace(manifest, live))
    draft.soon(0.1)


def _ordinal(host: str) -> int:
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
