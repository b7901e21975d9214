"""Which shards begin empty, on which host and under which epoch. Nothing else ever brings forth an empty shard.

**For the first time**: while the namespace never had shards, had no volumes before it, and every host has reported.
That it had shards is remembered by an annotation on the ActorNamespace, written before the first grant; by its status;
and by the volumes: the first table records them before any grant and names all owners at once, so shards that are held
without such a table were placed once, and so were the others.

**Anew**, since the user gave their data up with `kubeactor forget`, which names what it saw and so holds only once:

- What the table gives to a host that came up with another volume than the recorded, forgotten one: on the host's new
  volume, one epoch higher.
- Shards without an owner that no host holds, when each host that might hold them was forgotten: on all hosts evenly,
  above all epochs that anybody knows. A host might hold them unless it reported with the volume that the table records,
  or with shards on one that the table does not know.

What is granted follows from the published table alone, which is written by compare-and-swap and stays as it is until
every host has stored its grants. So two leaders, of whom one is late, can't grant differently.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

from kubeactor import placement as tables
from kubeactor.placement import Table
from kubeactor_operator import conditions, names
from kubeactor_operator.actions import Grant, Mark
from kubeactor_operator.draft import Draft
from kubeactor_operator.live import when
from kubeactor_operator.observed import Inventory, Observed
from kubeactor_operator.placed import GIVEN, Placed, ordinal, recalled, shard_text

__all__ = ["begin", "forgotten", "inherits", "settle"]

Reports = Mapping[str, Inventory]
Shards = Sequence[tuple[int, int]]


def forgotten(draft: Draft, table: Table, reports: Reports) -> Table:
    """The table after volumes that it records were forgotten: what it gives to their hosts begins on the new ones."""
    for host, report in sorted(reports.items()):
        volume = _wish(draft, host)[0]
        if not volume or table.volumes.get(host) != volume or report.volume == volume:
            continue
        lost = table.shards_of(host)
        anew = _free(report, [(shard, table.epoch(shard) + 1) for shard in lost])
        if not _granted(report, anew):
            _grant(draft, report, anew)
            draft.soon(0.1)
            continue
        table = _passed(table, report, lost, dict(anew))
    return table


def _passed(table: Table, report: Inventory, lost: Sequence[int], anew: Mapping[int, int]) -> Table:
    """To the host's new volume; what that knows from an earlier time has no owner."""
    stale = set(lost) - anew.keys()
    shards = range(table.shards)
    return Table(
        table.namespace,
        volumes={**table.volumes, report.host: report.volume},
        owners=[None if s in stale else (table.owner(s) or (None,))[0] for s in shards],
        epochs=[anew.get(s, table.epoch(s)) for s in shards],
    )


def _wish(draft: Draft, host: str) -> tuple[str, str]:
    """What `kubeactor forget` saw of the host: (its recorded volume or "", the table's uid and highest epoch)."""
    volume, _, seen = draft.observed.namespace.metadata.annotations.get(names.FORGET + host, "").partition(":")
    return volume, seen


def _free(report: Inventory, grants: Shards) -> list[tuple[int, int]]:
    """A volume that knows a shard under another epoch refuses to begin it."""
    known = {shard: epoch for shard, epoch, _ in report.states}
    return [(shard, epoch) for shard, epoch in grants if known.get(shard, epoch) == epoch]


def _granted(report: Inventory, grants: Shards) -> bool:
    held = {(shard, epoch) for shard, epoch, state in report.states if state != GIVEN}
    return held.issuperset(grants)


def _grant(draft: Draft, report: Inventory, grants: Shards) -> None:
    address = draft.pods[report.host].address
    draft.actions.append(Grant(report.host, report.volume, address, draft.credential, tuple(grants)))


def settle(draft: Draft, table: Table, reports: Reports) -> None:
    """What was to be forgotten of a host that has its volume, while no shard is lost, shall not mean a later loss."""
    annotations = draft.observed.namespace.metadata.annotations
    if not all(table.owner(shard) for shard in range(table.shards)):
        return
    well = [names.FORGET + host for host, report in reports.items() if table.volumes.get(host) == report.volume]
    if void := [name for name in well if name in annotations]:
        draft.actions.append(Mark(dict.fromkeys(void)))
        draft.soon(0.5)


def begin(draft: Draft, placed: Placed, table: Table, reports: Reports, silent: Sequence[str]) -> Table:
    """What to publish, once shards without an owner were granted if they may be.

    Args:
        placed: what is published; table: the same, brought up to the volumes.
        silent: hosts that have a claim and did not report.
    """
    if _was_placed(draft, placed, table):
        return _anew(draft, placed, table, reports, silent)
    if all(table.epoch(shard) for shard in range(table.shards)):
        return table
    return _first(draft, placed, table, reports, silent)


def _was_placed(draft: Draft, placed: Placed, table: Table) -> bool:
    """Whether its shards were ever granted; the first table, which records the volumes, belongs to the first time."""
    observed = draft.observed
    published = placed.table if placed.table and placed.table.volumes else None
    if observed.status.get("shards") or inherits(observed) or (observed.marked and published is None):
        return True
    first = published or table
    return any(first.epoch(shard) for shard in range(first.shards))


def inherits(observed: Observed) -> bool:
    """Whether there are volumes of an earlier namespace, which may hold any shard."""
    since = when(observed.namespace.metadata.creation_timestamp)
    return any(when(claim["metadata"].get("creationTimestamp")) < since for claim in observed.claimed.values())


def _first(draft: Draft, placed: Placed, table: Table, reports: Reports, silent: Sequence[str]) -> Table:
    base = placed.table
    if base is None or not base.volumes:
        wanted = _wanted(draft)
        if _missing(draft, wanted - reports.keys() | set(silent)) or not wanted:
            return table
        return table.with_volumes({host: reports[host].volume for host in wanted})
    if _missing(draft, base.volumes.keys() - reports.keys()) or _exchanged(base, reports):
        return base
    if not draft.observed.marked:
        draft.mark()
        return base
    _grant_all(draft, reports, tables.plan(base, dict(base.volumes)).grants)
    return base


def _anew(draft: Draft, placed: Placed, table: Table, reports: Reports, silent: Sequence[str]) -> Table:
    base, shards = placed.table or table, range(table.shards)
    epoch = max(map(_highest, (base, *recalled(draft.observed)))) + 1
    before = {host: [one for one in report.states if one[1] != epoch] for host, report in reports.items()}
    held = {shard for states in before.values() for shard, at, _ in states if at >= base.epoch(shard)}
    lost = [shard for shard in shards if not base.owner(shard) and shard not in held]
    if not lost:
        return table
    might = _wanted(draft) | draft.observed.claimed.keys() | base.volumes.keys()
    given_up = {host for host in might if placed.table and _wish(draft, host)[1] == _seen(draft, placed.table)}
    told = {
        host
        for host, report in reports.items()
        if base.volumes.get(host, report.volume) == report.volume and (host in base.volumes or before[host])
    }
    doubt = sorted(might - given_up - told, key=ordinal)
    if not given_up or doubt:
        _tell(draft, lost, doubt or sorted(might, key=ordinal)[:1], silent)
    changed = [
        shard for shard in shards if (table.owner(shard), table.epoch(shard)) != (base.owner(shard), base.epoch(shard))
    ]
    ours = all(table.epoch(shard) == epoch and not base.owner(shard) for shard in changed)
    if not given_up or not ours or table.volumes != base.volumes:
        return table
    wanted = _wanted(draft)
    if doubt or not wanted or _missing(draft, wanted - reports.keys()) or _exchanged(base, reports):
        return base
    if wanted - base.volumes.keys() or any(not base.epoch(shard) for shard in lost):
        return _given_up(base, {host: reports[host].volume for host in wanted})
    ahead = _grant_all(draft, reports, _spread(base, lost, wanted, reports, epoch))
    return base if ahead else table


def _given_up(table: Table, volumes: Mapping[str, str]) -> Table:
    """The volumes are recorded before anything is granted on them; an epoch tells that a shard does not begin first."""
    shards = range(table.shards)
    owners = [(table.owner(shard) or (None,))[0] for shard in shards]
    epochs = [max(1, table.epoch(shard)) for shard in shards]
    return Table(table.namespace, volumes={**table.volumes, **volumes}, owners=owners, epochs=epochs)


def _seen(draft: Draft, table: Table) -> str:
    """The published table as `kubeactor forget` tells it from a later one, or one that was made anew."""
    live = draft.observed.child(names.PLACEMENT_KIND, draft.observed.namespace.name)
    assert live
    return f"{live['metadata']['uid']}/{_highest(table)}"


def _highest(table: Table) -> int:
    return max(1, *(table.epoch(shard) for shard in range(table.shards)))


def _spread(
    table: Table, lost: Sequence[int], hosts: Set[str], reports: Reports, epoch: int
) -> dict[str, list[tuple[int, int]]]:
    """Each shard to the host that has the fewest and does not know it from an earlier time."""
    counts = {host: len(table.shards_of(host)) for host in sorted(hosts, key=ordinal)}
    grants: dict[str, list[tuple[int, int]]] = {host: [] for host in counts}
    for shard in lost:
        able = [host for host in counts if _free(reports[host], [(shard, epoch)])]
        if able:
            host = min(able, key=counts.__getitem__)
            counts[host] += 1
            grants[host].append((shard, epoch))
    return grants


def _grant_all(draft: Draft, reports: Reports, grants: Mapping[str, Shards]) -> bool:
    """Whether any host still has to store its own."""
    ahead = [host for host in grants if not _granted(reports[host], grants[host])]
    for host in ahead:
        _grant(draft, reports[host], grants[host])
    if ahead:
        draft.under_way(conditions.CREATING, "granting the new shards", again_s=0.05)
    return bool(ahead)


def _wanted(draft: Draft) -> set[str]:
    return {f"host-{n}" for n in range(draft.observed.namespace.spec.hosts.replicas)}


def _exchanged(table: Table, reports: Reports) -> bool:
    """Whether a host came up with another volume than the recorded one."""
    return any(table.volumes.get(host, report.volume) != report.volume for host, report in reports.items())


def _missing(draft: Draft, hosts: Set[str]) -> bool:
    if hosts:
        text = f"waiting for {', '.join(sorted(hosts, key=ordinal))} to open its volume"
        draft.under_way(conditions.CREATING, text, again_s=0.5)
    return bool(hosts)


def _tell(draft: Draft, lost: list[int], hosts: Sequence[str], silent: Sequence[str]) -> None:
    name = draft.observed.namespace.name
    commands = ", ".join(f"`kubeactor forget {name} {host} --accept-data-loss`" for host in hosts)
    seen = f" (not seen: {', '.join(silent)})" if silent else ""
    draft.trouble(
        conditions.PLACEMENT_INCOMPLETE,
        f"no volume holds shards {shard_text(lost)}, which were placed once: they stay without an owner{seen}. Bring "
        f"the missing volumes back, or restore them from a backup; or give their data up, and begin them empty, with "
        f"{commands}",
        stalled=not silent,
    )
