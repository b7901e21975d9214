"""Brings the placement table up to the volumes, and tells what is missing.

placed.py has what a table says after the volumes have reported, grants.py which shards begin empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from kubeactor.placement import Table
from kubeactor_operator import conditions, grants, names
from kubeactor_operator.actions import Create, Replace
from kubeactor_operator.children.placement import placement as manifest_of
from kubeactor_operator.draft import Draft
from kubeactor_operator.live import when
from kubeactor_operator.observed import Inventory
from kubeactor_operator.placed import GIVEN, Placed, merged, ordinal, recalled, shard_text

__all__ = ["place"]

WRITE_EVERY_S: Final = 1.0
GATHER_S: Final = 60.0  # how long a rebuild waits for a pod that does not report, before it goes on without


def place(draft: Draft, placed: Placed) -> None:
    """Bring the table up to the volumes and grant what was never granted; at most one write a second."""
    observed = draft.observed
    hosts = set(observed.claimed)
    if not placed.readable or not hosts:
        return
    reports = _reports(draft)
    silent = sorted(hosts - reports.keys(), key=ordinal)
    if grants.inherits(observed):
        draft.mark()  # at once: they may be lost before they have reported
    if placed.table is None and not _may_rebuild(draft, silent):
        return
    known = recalled(observed)
    table, contested = merged(placed.table or known[0], reports, known, whole=not silent)
    for message in contested:
        draft.trouble(conditions.PLACEMENT_INCOMPLETE, message)
    table = grants.forgotten(draft, table, reports)
    _tell_lost(draft, table, reports)
    if any(not table.owner(shard) for shard in range(table.shards)):
        table = grants.begin(draft, placed, table, reports, silent)
    _tell_ownerless(draft, table, silent)
    if observed.status.get("shards") or any(table.epoch(shard) for shard in range(table.shards)):
        draft.mark()
    if placed.table is None or table != placed.table:
        _write(draft, table)
    else:
        grants.settle(draft, table, reports)


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


def _tell_lost(draft: Draft, table: Table, reports: Mapping[str, Inventory]) -> None:
    name = draft.observed.namespace.name
    for host, report in sorted(reports.items()):
        owned = table.shards_of(host)
        held = {shard for shard, _, state in report.states if state != GIVEN}
        less = [shard for shard in owned if shard not in held]
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
