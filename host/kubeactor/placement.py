"""The placement table (which host owns which shard, under which epoch) and the planner that decides about it.

Pure: no file, no socket, no clock, so the operator and `kubeactor dev --hosts N` share it. The table is a cache of a
truth that lies on the volumes. It is stored compactly, since it is read whole by every ingress and host:

    {"format": 1, "namespace": "<uid>", "shards": 256, "epochs": "0-63:1,64-255:3", "moves": [],
     "hosts": {"host-0": {"volume": "<id>", "shards": "0-84,90"}, ...}}

A shard of epoch 0 (not listed) was never granted, so it is empty wherever it begins. A shard that has an epoch and no
owner was lost with a volume: the planner leaves it alone, since only a user may give up its data.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice
from typing import Final

import msgspec

from kubeactor.limits import SHARDS_MAX

__all__ = ["FORMAT", "Document", "HostRow", "Move", "PlacementError", "Plan", "Table", "VolumeLost", "adopted", "plan"]

FORMAT: Final = 1
GIVEN: Final = "given"  # the state of a shard that a host gave up, in its inventory
_RANGE: Final = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?")
_EPOCHS: Final = re.compile(r"([^:]+):([0-9]{1,18})")


class PlacementError(ValueError):
    """Raised when a placement table is malformed or contradicts itself; the text says where."""


class VolumeLost(PlacementError):
    """Raised when a host came back with a volume that is not, or holds less than, what the table records for it."""


class HostRow(msgspec.Struct, frozen=True):
    """One host in the stored table: the id of its volume and the shards that it owns, as ranges ("0-84,90")."""

    volume: str
    shards: str = ""


class Move(msgspec.Struct, frozen=True):
    """A shard on its way from its owner to another host, where it will have that epoch."""

    id: str
    shard: int
    source: str
    target: str
    epoch: int


class Document(msgspec.Struct, frozen=True):
    """The stored form of a table. Unknown fields are ignored: what must not be ignored raises `format`."""

    format: int
    namespace: str
    shards: int
    hosts: dict[str, HostRow]
    epochs: str = ""
    moves: tuple[Move, ...] = ()


class Table:
    """An immutable placement table; changes give a new one.

    Attributes:
        namespace: uid of the ActorNamespace; shards: how many it has, for ever.
        volumes: host id -> id of its volume, for every host known.
        moves: shards on their way.

    Raises:
        PlacementError: when the parts contradict each other.
    """

    __slots__ = ("_epochs", "_owners", "moves", "namespace", "shards", "volumes")

    def __init__(
        self,
        namespace: str,
        *,
        volumes: Mapping[str, str],
        owners: Sequence[str | None],
        epochs: Sequence[int],
        moves: Iterable[Move] = (),
    ) -> None:
        self.namespace = namespace
        self.shards = len(owners)
        self.volumes = dict(volumes)
        self.moves = tuple(moves)
        self._epochs = tuple(epochs)
        self._owners = tuple(None if host is None else (host, e) for host, e in zip(owners, epochs, strict=True))
        self._check()

    @classmethod
    def empty(cls, namespace: str, shards: int) -> Table:
        """A table in which no shard was ever granted."""
        return cls(namespace, volumes={}, owners=[None] * shards, epochs=[0] * shards)

    def _check(self) -> None:
        if not 1 <= self.shards <= SHARDS_MAX:
            raise PlacementError(f"a namespace has 1..{SHARDS_MAX} shards, this table has {self.shards}")
        if not self.namespace:
            raise PlacementError("the table names no namespace")
        for shard, owner in enumerate(self._owners):
            if owner and owner[0] not in self.volumes:
                raise PlacementError(f"shard {shard} belongs to {owner[0]!r}, which the table does not list")
            if owner and owner[1] < 1:
                raise PlacementError(f"shard {shard} has an owner but no epoch")
        seen: set[int] = set()
        for move in self.moves:
            self._check_move(move, seen)

    def _check_move(self, move: Move, seen: set[int]) -> None:
        if not 0 <= move.shard < self.shards or move.shard in seen:
            raise PlacementError(f"move {move.id!r}: shard {move.shard} does not exist or moves twice")
        seen.add(move.shard)
        owner = self._owners[move.shard]
        if owner is None or owner[0] != move.source:
            raise PlacementError(f"move {move.id!r}: shard {move.shard} does not belong to {move.source!r}")
        if move.target not in self.volumes or move.target == move.source:
            raise PlacementError(f"move {move.id!r}: {move.target!r} can't be its target")
        if move.epoch <= owner[1]:
            raise PlacementError(f"move {move.id!r}: epoch {move.epoch} is not above the shard's epoch {owner[1]}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Table) and self.document() == other.document()

    __hash__ = None  # type: ignore[assignment]

    def owner(self, shard: int) -> tuple[str, int] | None:
        """(host id, epoch) of the shard, or None while it has no owner. O(1): it is on the path of each call."""
        return self._owners[shard]

    def epoch(self, shard: int) -> int:
        """The shard's last epoch; 0 when it was never granted."""
        return self._epochs[shard]

    def shards_of(self, host: str) -> list[int]:
        """The shards that a host owns, ascending."""
        return [shard for shard, owner in enumerate(self._owners) if owner and owner[0] == host]

    def with_volumes(self, volumes: Mapping[str, str]) -> Table:
        """The table that also knows these hosts.

        Raises:
            VolumeLost: when one is known with another volume.
        """
        for host, volume in volumes.items():
            if self.volumes.get(host, volume) != volume:
                raise VolumeLost(_other_volume(self, host, volume))
        return self._changed(volumes=self.volumes | dict(volumes))

    def assigned(self, changes: Iterable[tuple[int, str | None, int]]) -> Table:
        """The table after (shard, new owner, its epoch); an epoch only ever grows.

        Raises:
            PlacementError: when an epoch does not grow, or a host or shard is unknown.
        """
        owners, epochs = [owner and owner[0] for owner in self._owners], list(self._epochs)
        for shard, host, epoch in changes:
            if not 0 <= shard < self.shards:
                raise PlacementError(f"shard {shard} is not one of {self.shards}")
            if epoch <= epochs[shard]:
                raise PlacementError(f"shard {shard} is at epoch {epochs[shard]}; epoch {epoch} is not above it")
            owners[shard], epochs[shard] = host, epoch
        moves = [move for move in self.moves if epochs[move.shard] == self._epochs[move.shard]]
        return self._changed(owners=owners, epochs=epochs, moves=moves)

    def _changed(
        self,
        volumes: Mapping[str, str] | None = None,
        owners: Sequence[str | None] | None = None,
        epochs: Sequence[int] | None = None,
        moves: Iterable[Move] | None = None,
    ) -> Table:
        return Table(
            self.namespace,
            volumes=self.volumes if volumes is None else volumes,
            owners=[owner and owner[0] for owner in self._owners] if owners is None else owners,
            epochs=self._epochs if epochs is None else epochs,
            moves=self.moves if moves is None else moves,
        )

    def document(self) -> Document:
        """The stored form."""
        return Document(
            format=FORMAT,
            namespace=self.namespace,
            shards=self.shards,
            hosts={
                host: HostRow(volume, _ranges_text(self.shards_of(host)))
                for host, volume in sorted(self.volumes.items())
            },
            epochs=_epochs_text(self._epochs),
            moves=self.moves,
        )

    @classmethod
    def of(cls, document: Document) -> Table:
        """The table of a stored form.

        Raises:
            PlacementError: when the format is newer than this program or the table contradicts itself.
        """
        if document.format != FORMAT:
            raise PlacementError(f"the table has format {document.format}; this kubeactor reads format {FORMAT}")
        if not 1 <= document.shards <= SHARDS_MAX:
            raise PlacementError(f"a namespace has 1..{SHARDS_MAX} shards, this table has {document.shards}")
        owners: list[str | None] = [None] * document.shards
        for host, row in document.hosts.items():
            for shard in _shards(row.shards, document.shards, f"host {host!r}"):
                if owners[shard] is not None:
                    raise PlacementError(f"shard {shard} belongs to both {owners[shard]!r} and {host!r}")
                owners[shard] = host
        return cls(
            document.namespace,
            volumes={host: row.volume for host, row in document.hosts.items()},
            owners=owners,
            epochs=_epochs(document.epochs, document.shards),
            moves=document.moves,
        )

    def to_json(self) -> bytes:
        """The stored form as JSON."""
        return msgspec.json.encode(self.document())

    @classmethod
    def from_json(cls, data: bytes) -> Table:
        """The table that `to_json` gave.

        Raises:
            PlacementError: when the bytes are no placement table.
        """
        try:
            return cls.of(msgspec.json.decode(data, type=Document))
        except msgspec.MsgspecError as error:
            raise PlacementError(f"not a placement table: {error}") from error


def adopted(
    table: Table,
    volumes: Mapping[str, str],
    reports: Mapping[str, Iterable[tuple[int, int, str]]],
    *,
    recorded: bool,
) -> Table:
    """The table brought up to what lies on the volumes, which is the truth.

    Args:
        table: the last known one, or an empty one.
        volumes: host -> id of its volume, for all hosts that were asked.
        reports: host -> (shard, epoch, state) of what it holds.
        recorded: whether the table was ever stored. If not, shards that nobody reports can be granted only when
            nobody reports any: else they were lost.

    Raises:
        VolumeLost: when a host has another volume or holds less than the table says.
        PlacementError: when a host that owns shards is missing, two hosts hold one shard, or shards were lost.
    """
    for host in table.volumes.keys() - volumes.keys():
        if owned := table.shards_of(host):
            raise PlacementError(f"{host} owns shards {_ranges_text(owned)} and is not among the hosts")
    table = table.with_volumes(volumes)
    if beyond := sorted({shard for report in reports.values() for shard, _, _ in report if shard >= table.shards}):
        raise PlacementError(f"a volume holds shards {_ranges_text(beyond)}, the namespace has {table.shards}")
    found: dict[int, tuple[str | None, int]] = {}
    for host, report in sorted(reports.items()):
        held = {shard: epoch for shard, epoch, state in report if state != GIVEN}
        less = [s for s in table.shards_of(host) if held.get(s, 0) < table.epoch(s)]
        if less:
            raise VolumeLost(f"{host} does not hold shards {_ranges_text(less)}, which the table says are its own")
        for shard, epoch in held.items():
            if found.setdefault(shard, (host, epoch))[0] != host:
                raise PlacementError(f"{host} and {found[shard][0]} both hold shard {shard}")
    _note_given(found, reports)
    unseen = [shard for shard in range(table.shards) if shard not in found]
    if found and unseen and not recorded:
        raise PlacementError(f"there is no placement table, and no volume holds shards {_ranges_text(unseen)}")
    return table.assigned((s, host, e) for s, (host, e) in found.items() if (host, e) != table.owner(s))


def _note_given(
    found: dict[int, tuple[str | None, int]], reports: Mapping[str, Iterable[tuple[int, int, str]]]
) -> None:
    # Given away to a host that does not hold it: without an owner, and never to be taken for one that has no data.
    for report in reports.values():
        for shard, epoch, state in report:
            if state == GIVEN and found.get(shard, (None, 0))[1] < epoch:
                found[shard] = (None, epoch)


class Plan(msgspec.Struct, frozen=True):
    """What to do so that the shards are spread evenly.

    Attributes:
        grants: host -> (shard, epoch) of shards that never had an owner; the host begins them empty.
        moves: shards to be moved from a host that has too many, or is leaving.
        lost: host -> one sentence, for each host whose volume is not the recorded one: it gets nothing.
        stranded: shards that had an owner once and have none now.
    """

    grants: dict[str, tuple[tuple[int, int], ...]]
    moves: tuple[Move, ...]
    lost: dict[str, str]
    stranded: tuple[int, ...]


def plan(table: Table, hosts: Mapping[str, str | None]) -> Plan:
    """Spread the shards over the hosts: counts differ by at most one, as few shards as possible move.

    Deterministic. The first of the remaining shards go to those who have the most, so a balanced table stays as it is.

    Args:
        table: the table as it is.
        hosts: the hosts that shall own shards, each with its volume's id; None if the host can't be asked at the
            moment: it keeps what it has and gets nothing. A host of the table that is missing here is leaving.
    """
    lost = {
        host: _other_volume(table, host, volume)
        for host, volume in sorted(hosts.items())
        if volume is not None and table.volumes.get(host, volume) != volume
    }
    able = sorted(host for host, volume in hosts.items() if volume is not None and host not in lost)
    fresh = [shard for shard in range(table.shards) if not table.epoch(shard)]
    stranded = tuple(s for s in range(table.shards) if table.epoch(s) and table.owner(s) is None)
    if not able:
        return Plan({}, (), lost, stranded)
    moving = {move.shard: move.target for move in table.moves}
    held = _held(table, able, moving)
    leaving = [s for host in table.volumes if host not in hosts for s in table.shards_of(host) if s not in moving]
    quota = _quotas(held, len(fresh) + len(leaving))
    surplus = [s for host in able for s in _surplus(held[host], quota[host], moving)]
    pool = iter([*fresh, *sorted(surplus + leaving)])
    grants: dict[str, tuple[tuple[int, int], ...]] = {}
    moves: list[Move] = []
    for host in able:
        taken = list(islice(pool, max(0, quota[host] - len(held[host]))))
        if granted := tuple((shard, 1) for shard in taken if not table.epoch(shard)):
            grants[host] = granted
        moves += [_move(table, shard, host) for shard in taken if table.epoch(shard)]
    return Plan(grants, tuple(moves), lost, stranded)


def _held(table: Table, able: Sequence[str], moving: Mapping[int, str]) -> dict[str, list[int]]:
    held: dict[str, list[int]] = {host: [] for host in able}
    for shard in range(table.shards):
        owner = table.owner(shard)
        if owner and (host := moving.get(shard, owner[0])) in held:
            held[host].append(shard)
    return held


def _quotas(held: Mapping[str, list[int]], more: int) -> dict[str, int]:
    each, extra = divmod(more + sum(map(len, held.values())), len(held))
    fullest = sorted(held, key=lambda host: (-len(held[host]), host))
    return {host: each + (n < extra) for n, host in enumerate(fullest)}


def _surplus(held: list[int], quota: int, moving: Mapping[int, str]) -> list[int]:
    excess = max(0, len(held) - quota)
    return [shard for shard in reversed(held) if shard not in moving][:excess]


def _move(table: Table, shard: int, target: str) -> Move:
    owner = table.owner(shard)
    assert owner is not None
    epoch = owner[1] + 1
    return Move(f"{shard}-{epoch}", shard, owner[0], target, epoch)


def _other_volume(table: Table, host: str, volume: str) -> str:
    return (
        f"{host} came back with volume {volume}, but the table records volume {table.volumes[host]}: its data is not "
        "there, so it gets no shard"
    )


def _ranges_text(shards: Iterable[int]) -> str:
    runs = []
    for _, run in groupby(enumerate(shards), lambda pair: pair[1] - pair[0]):
        members = [shard for _, shard in run]
        runs.append(_range_text(members[0], members[-1]))
    return ",".join(runs)


def _range_text(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def _epochs_text(epochs: Sequence[int]) -> str:
    runs = []
    for epoch, run in groupby(enumerate(epochs), lambda pair: pair[1]):
        members = [shard for shard, _ in run]
        if epoch:
            runs.append(f"{_range_text(members[0], members[-1])}:{epoch}")
    return ",".join(runs)


def _shards(text: str, shards: int, where: str) -> Iterator[int]:
    """Each shard of "0-84,90"; ascending, so that one table has one text."""
    last = -1
    for part in text.split(",") if text else ():
        match = _RANGE.fullmatch(part)
        if not match:
            raise PlacementError(f"{where}: {part!r} is not a range of shards such as 0-84 or 90")
        first, end = int(match[1]), int(match[2] or match[1])
        if not last < first <= end < shards:
            raise PlacementError(f"{where}: {part!r} is not ascending within 0-{shards - 1}")
        yield from range(first, end + 1)
        last = end


def _epochs(text: str, shards: int) -> list[int]:
    epochs, last = [0] * shards, -1
    for part in text.split(",") if text else ():
        match = _EPOCHS.fullmatch(part)
        if not match or not int(match[2]):
            raise PlacementError(f"epochs: {part!r} is not a range and its epoch such as 0-63:1")
        for shard in _shards(match[1], shards, "epochs"):
            if shard <= last:
                raise PlacementError(f"epochs: {part!r} is not ascending within 0-{shards - 1}")
            epochs[shard] = int(match[2])
            last = shard
    return epochs
