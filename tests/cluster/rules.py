"""What must be true of every version of a namespace's objects that was ever published, however many operators wrote.

Pure: a history goes in, sentences about broken rules come out. tests/cluster/published.py records the history of a real
cluster; tests/cluster/test_rules.py breaks each rule.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from kubeactor.placement import Document, PlacementError, Table
from kubeactor_operator import names
from kubeactor_operator.live import annotation, condition

__all__ = ["Version", "broken", "restarts"]

Object = dict[str, Any]


class Version(NamedTuple):
    """One event of a watch: ADDED, MODIFIED or DELETED, and the object as it was published."""

    event: str
    object: Object

    @property
    def kind(self) -> str:
        """Of the object."""
        return str(self.object["kind"])

    @property
    def place(self) -> tuple[str, str]:
        """Kubernetes namespace and name."""
        return self.object["metadata"]["namespace"], self.object["metadata"]["name"]

    @property
    def number(self) -> int:
        """Of the version: it grows over all objects of a cluster."""
        return int(self.object["metadata"]["resourceVersion"])

    @property
    def uid(self) -> str:
        """Of the object."""
        return str(self.object["metadata"]["uid"])

    @property
    def deleted(self) -> bool:
        """Whether it is gone."""
        return self.event == "DELETED"

    @property
    def going(self) -> bool:
        """Whether it is gone, or was told to end."""
        return self.deleted or "deletionTimestamp" in self.object["metadata"]

    @property
    def owner(self) -> tuple[str, str]:
        """The ActorNamespace that it belongs to."""
        labels = self.object["metadata"].get("labels") or {}
        return self.place[0], labels.get(names.NAMESPACE_LABEL, "")


def broken(history: Iterable[Version], *, by_hand: Collection[int] = (), given_up: Collection[str] = ()) -> list[str]:
    """A sentence for each rule that a version breaks.

    Args:
        history: of all kinds, in any order.
        by_hand: numbers of versions that the test itself wrote: what follows is not compared with them.
        given_up: names of claims that the test itself deleted.
    """
    rules: dict[str, Callable[[Version], Iterable[str]]] = {}
    seen = Seen()
    rules[names.KIND] = seen.note
    rules[names.PLACEMENT_KIND] = Tables(seen).look
    rules["StatefulSet"] = StatefulSets(seen).look
    rules["Pod"] = Pods(seen).look
    rules["PersistentVolumeClaim"] = Claims(given_up).look
    versions = sorted(history, key=lambda version: version.number)
    return [
        f"{version.kind} {'/'.join(version.place)} at {version.number}: {sentence}"
        for version in versions
        if version.number not in by_hand
        for sentence in rules[version.kind](version)
    ]


@dataclass
class Seen:
    """What users asked for up to now, and which templates failed."""

    replicas: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    forgets: set[tuple[str, str, str, str]] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)

    def note(self, version: Version) -> Iterator[str]:
        """Remember a spec."""
        asked = self.replicas.setdefault(version.place, [])
        wanted = version.object["spec"]["hosts"]["replicas"]
        if not asked or asked[-1] != wanted:
            asked.append(wanted)
        for key, value in (version.object["metadata"].get("annotations") or {}).items():
            if key.startswith(names.FORGET):
                self.forgets.add((*version.place, key.removeprefix(names.FORGET), value.partition(":")[0]))
        yield from ()


@dataclass
class History:
    """What the tables of one ActorNamespace have said."""

    owners: dict[tuple[int, int], str] = field(default_factory=dict)  # (shard, epoch) -> the one host that ever had it
    last: Table | None = None


class Tables:
    """At most one owner of a shard, one owner of an epoch for ever, and nothing goes back or disappears."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen
        self._histories: dict[tuple[tuple[str, str], str], History] = {}

    def look(self, version: Version) -> Iterator[str]:
        """At a table; one that is deleted says nothing, and what follows is compared with it all the same."""
        if version.deleted:
            return
        try:
            table = Table.of(msgspec.convert(version.object["spec"], Document))
        except (PlacementError, msgspec.ValidationError) as error:
            yield f"it is no table: {error}"
            return
        history = self._histories.setdefault((version.place, table.namespace), History())
        yield from self._compared(version, history, table)
        for shard in range(table.shards):
            if owner := table.owner(shard):
                host, epoch = owner
                first = history.owners.setdefault((shard, epoch), host)
                if first != host:
                    yield f"shard {shard} belongs to {host} at epoch {epoch}, which was {first}'s"
        history.last = table

    def _compared(self, version: Version, history: History, table: Table) -> Iterator[str]:
        before = history.last
        if before is None:
            return
        if table.shards != before.shards:
            yield f"{before.shards} shards became {table.shards}"
            return
        for shard in range(table.shards):
            if table.epoch(shard) < before.epoch(shard):
                yield f"the epoch of shard {shard} went back from {before.epoch(shard)} to {table.epoch(shard)}"
            if before.owner(shard) and not table.owner(shard) and table.epoch(shard) == before.epoch(shard):
                yield f"shard {shard} has no owner any more"
        for host, volume in before.volumes.items():
            forgotten = (*version.place, host, volume) in self._seen.forgets
            if host not in table.volumes:
                yield f"{host} disappeared"
            elif table.volumes[host] != volume and not forgotten:
                yield f"the volume of {host} changed from {volume} to {table.volumes[host]}, and nobody forgot it"


class Order:
    """Templates in the order in which they were first seen."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], list[str]] = {}

    def returned(self, place: tuple[str, str], template: str, failed: Collection[str]) -> bool:
        """Whether this template was left for another one before, which did not fail."""
        seen = self._seen.setdefault(place, [])
        while seen and seen[-1] != template and seen[-1] in failed:
            seen.pop()  # it was put back; the same again would be a new try
        if template in seen:
            return seen[-1] != template
        seen.append(template)
        return False


class StatefulSets:
    """The template goes forward, back only from one that failed; as many hosts as somebody asked for."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen
        self._order = Order()

    def look(self, version: Version) -> Iterator[str]:
        """At a StatefulSet."""
        if version.deleted:
            return
        if text := annotation(version.object, names.FAILED):
            self._seen.failed.add(msgspec.json.decode(text)["hash"])
        template = annotation(version.object["spec"]["template"], names.TEMPLATE)
        if self._order.returned(version.place, template, self._seen.failed):
            yield f"template {template} came back after a newer one"
        replicas, asked = version.object["spec"]["replicas"], self._seen.replicas.get(version.owner, [])
        if replicas not in asked:
            yield f"{replicas} replicas, and the specs up to then asked for {asked}"


class Pods:
    """A host runs newer and newer templates, back only from one that failed."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen
        self._order = Order()

    def look(self, version: Version) -> Iterator[str]:
        """At a pod that is just made."""
        template = annotation(version.object, names.TEMPLATE)
        if version.event == "ADDED" and self._order.returned(version.place, template, self._seen.failed):
            yield f"made from template {template} after a newer one"


class Claims:
    """A claim is never deleted, and never bound to another volume."""

    def __init__(self, given_up: Collection[str]) -> None:
        self._given_up = given_up
        self._volumes: dict[str, str] = {}

    def look(self, version: Version) -> Iterator[str]:
        """At a claim."""
        if version.going and version.place[1] not in self._given_up:
            yield "it is deleted"
        volume = version.object["spec"].get("volumeName", "")
        if volume and self._volumes.setdefault(version.uid, volume) != volume:
            yield f"it was bound to {self._volumes[version.uid]} and is to {volume}"


def restarts(history: Iterable[Version]) -> list[str]:
    """A sentence for each host that was restarted without need, or while another one was away.

    For histories in which nobody but operators deletes pods.
    """
    found = []
    ready: dict[tuple[str, str], dict[str, bool]] = {}
    made: dict[tuple[str, str], tuple[str, str]] = {}  # the pod's template and uid
    going: set[str] = set()
    for version in sorted(history, key=lambda version: version.number):
        meta = version.object["metadata"]
        if version.kind != "Pod" or meta["labels"].get("app.kubernetes.io/component") != names.HOST:
            continue
        name, uid, others = version.place[1], version.uid, ready.setdefault(version.owner, {})
        template = annotation(version.object, names.TEMPLATE)
        before = made.get(version.place)
        if before and before[0] == template and before[1] != uid:  # after another template it was put back
            found.append(f"{name} was made twice from template {template}")
        made[version.place] = template, uid
        if version.going and uid not in going:
            going.add(uid)
            away = sorted(other for other, well in others.items() if other != name and not well)
            found += [f"{name} was deleted while {', '.join(away)} was away"] if away else []
        others[name] = not version.going and condition(version.object, "Ready").get("status") == "True"
    return found
