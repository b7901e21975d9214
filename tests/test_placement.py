from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kubeactor.ids import identity_of_name, identity_of_unique, shard_of
from kubeactor.placement import Move, PlacementError, Table, VolumeLost, adopted, plan

VECTORS = json.loads((Path(__file__).parent / "vectors" / "shards.json").read_text())


def stored(**changes: Any) -> bytes:
    document = {
        "format": 1,
        "namespace": "uid-1",
        "shards": 8,
        "hosts": {"host-0": {"volume": "v0", "shards": "0-2,4"}, "host-1": {"volume": "v1", "shards": "5-6"}},
        "epochs": "0-2:1,3-6:3",
        "moves": [],
    }
    return json.dumps(document | changes).encode()


@pytest.mark.parametrize("vector", VECTORS["names"], ids=lambda vector: repr(vector["name"]))
def test_a_name_keeps_its_shard_for_ever(vector: dict[str, Any]) -> None:
    identity = identity_of_name(vector["name"])
    assert {count: shard_of(identity, int(count)) for count in vector["shards"]} == vector["shards"]


@pytest.mark.parametrize("vector", VECTORS["unique"], ids=lambda vector: str(vector["id"]))
def test_a_unique_id_keeps_its_shard_for_ever(vector: dict[str, Any]) -> None:
    identity = identity_of_unique(vector["id"])
    assert {count: shard_of(identity, int(count)) for count in vector["shards"]} == vector["shards"]


def test_a_stored_table_tells_owners_and_epochs() -> None:
    table = Table.from_json(stored())
    assert [table.owner(shard) for shard in range(8)] == [
        ("host-0", 1),
        ("host-0", 1),
        ("host-0", 1),
        None,
        ("host-0", 3),
        ("host-1", 3),
        ("host-1", 3),
        None,
    ]
    assert (table.epoch(3), table.epoch(7)) == (3, 0)
    assert table.shards_of("host-0") == [0, 1, 2, 4]
    assert json.loads(table.to_json()) == json.loads(stored())


def test_a_table_with_moves_survives_storing() -> None:
    table = Table.from_json(stored(moves=move()))
    assert table.moves == (Move("m", 4, "host-0", "host-1", 4),)
    assert Table.from_json(table.to_json()) == table
    assert table != Table.from_json(stored())
    assert table.assigned([(4, "host-1", 4)]).moves == (), "a move ends with the epoch it gave"


def test_a_scattered_table_of_the_largest_size_stays_small() -> None:
    hosts = {f"host-{n}": f"{n:032x}" for n in range(16)}
    table = Table(
        "f" * 36,
        volumes=hosts,
        owners=[f"host-{(shard * 7) % 16}" for shard in range(4096)],
        epochs=[1 + shard * 37 % 100 for shard in range(4096)],
    )
    assert len(table.to_json()) < 64_000
    assert Table.from_json(table.to_json()) == table


def move(**changes: Any) -> list[dict[str, Any]]:
    return [{"id": "m", "shard": 4, "source": "host-0", "target": "host-1", "epoch": 4} | changes]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"format": 2}, "format 2"),
        ({"shards": 0}, "this table has 0"),
        ({"shards": 4097}, "this table has 4097"),
        ({"namespace": ""}, "no namespace"),
        ({"hosts": {"a": {"volume": "v", "shards": "0-3"}, "b": {"volume": "w", "shards": "3"}}}, "shard 3 belongs to"),
        ({"hosts": {"a": {"volume": "v", "shards": "0-8"}}}, "'0-8' is not ascending within 0-7"),
        ({"hosts": {"a": {"volume": "v", "shards": "4,2"}}}, "'2' is not ascending"),
        ({"hosts": {"a": {"volume": "v", "shards": "2-1"}}}, "'2-1' is not ascending"),
        ({"hosts": {"a": {"volume": "v", "shards": "1,,2"}}}, "'' is not a range"),
        ({"hosts": {"a": {"volume": "v", "shards": "x"}}}, "'x' is not a range"),
        ({"hosts": {"a": {"volume": "v", "shards": "7"}}}, "no epoch"),
        ({"hosts": {"a": {"shards": "7"}}}, "volume"),
        ({"hosts": []}, "not a placement table"),
        ({"epochs": "0-7"}, "'0-7' is not a range and its epoch"),
        ({"epochs": "0-7:0"}, "'0-7:0' is not a range and its epoch"),
        ({"epochs": ":1"}, "not a range and its epoch"),
        ({"epochs": "0-7:1,3:2"}, "epochs: '3:2' is not ascending"),
        ({"epochs": "0-8:1"}, "epochs: '0-8' is not ascending"),
        ({"moves": move(shard=8)}, "does not exist"),
        ({"moves": move() + move()}, "moves twice"),
        ({"moves": move(source="host-1")}, "does not belong"),
        ({"moves": move(shard=7)}, "does not belong"),
        ({"moves": move(target="host-0")}, "can't be its target"),
        ({"moves": move(target="host-9")}, "can't be its target"),
        ({"moves": move(epoch=3)}, "not above"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused_with_the_place(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(PlacementError, match=complaint.replace("(", r"\(")):
        Table.from_json(stored(**changes))


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b"null"])
def test_bytes_that_are_no_table_are_refused(data: bytes) -> None:
    with pytest.raises(PlacementError, match="not a placement table"):
        Table.from_json(data)


def test_an_owner_must_be_listed_among_the_hosts() -> None:
    with pytest.raises(PlacementError, match="does not list"):
        Table("uid", volumes={}, owners=["host-0"], epochs=[1])


def test_epochs_only_grow() -> None:
    table = Table.from_json(stored())
    with pytest.raises(PlacementError, match="not above"):
        table.assigned([(4, "host-1", 3)])
    with pytest.raises(PlacementError, match="not one of 8"):
        table.assigned([(8, "host-1", 1)])
    assert table.assigned([(4, "host-1", 4)]).owner(4) == ("host-1", 4)
    assert table.owner(4) == ("host-0", 3), "a table never changes"


def test_a_known_host_with_another_volume_is_lost() -> None:
    with pytest.raises(VolumeLost, match="host-0 came back with volume other"):
        Table.from_json(stored()).with_volumes({"host-0": "other"})


def test_the_first_plan_grants_contiguous_equal_parts() -> None:
    first = plan(Table.empty("uid", 8), {"b": "vb", "a": "va"})
    assert first.grants == {"a": ((0, 1), (1, 1), (2, 1), (3, 1)), "b": ((4, 1), (5, 1), (6, 1), (7, 1))}
    assert (first.moves, first.lost, first.stranded) == ((), {}, ())


def test_a_new_host_gets_only_the_excess() -> None:
    table = Table("uid", volumes={"a": "va"}, owners=["a"] * 8, epochs=[1] * 8)
    second = plan(table, {"a": "va", "b": "vb"})
    assert second.grants == {}
    assert [(m.shard, m.source, m.target, m.epoch) for m in second.moves] == [(s, "a", "b", 2) for s in (4, 5, 6, 7)]


def test_a_host_that_leaves_gives_all_away() -> None:
    table = Table("uid", volumes={"a": "va", "b": "vb"}, owners=["a", "b"] * 4, epochs=[1] * 8)
    assert [(m.shard, m.target) for m in plan(table, {"a": "va"}).moves] == [(s, "a") for s in (1, 3, 5, 7)]


def test_a_host_with_another_volume_gets_nothing_and_its_shards_stay_lost() -> None:
    table = Table(
        "uid", volumes={"a": "va", "b": "vb"}, owners=["a", "a", "b", "b"] + [None] * 4, epochs=[1] * 5 + [0] * 3
    )
    result = plan(table, {"a": "va", "b": "new"})
    assert "records volume vb" in result.lost["b"]
    assert result.grants == {"a": ((5, 1), (6, 1), (7, 1))}
    assert result.moves == ()
    assert result.stranded == (4,)


def test_a_host_that_cannot_be_asked_keeps_what_it_has_and_gets_nothing() -> None:
    table = Table("uid", volumes={"a": "va", "b": "vb"}, owners=["a", "b"] + [None] * 6, epochs=[1, 1] + [0] * 6)
    result = plan(table, {"a": "va", "b": None})
    assert set(result.grants) == {"a"}
    assert result.moves == ()
    assert plan(table, {"a": None, "b": None}).grants == {}


def test_a_shard_on_its_way_counts_where_it_will_be() -> None:
    table = Table(
        "uid", volumes={"a": "va", "b": "vb"}, owners=["a"] * 4, epochs=[1] * 4, moves=[Move("m", 3, "a", "b", 2)]
    )
    assert [(m.shard, m.target) for m in plan(table, {"a": "va", "b": "vb"}).moves] == [(2, "b")]
    assert [m.shard for m in plan(table, {"b": "vb"}).moves] == [0, 1, 2], "it does not move a second time"


def owned(*shards: int, epoch: int = 1, state: str = "owned") -> list[tuple[int, int, str]]:
    return [(shard, epoch, state) for shard in shards]


def test_an_unchanged_namespace_adopts_to_the_same_table() -> None:
    table = Table("uid", volumes={"a": "va", "b": "vb"}, owners=["a", "a", "b", "b"], epochs=[1] * 4)
    reports = {"a": owned(0, 1), "b": owned(2, 3)}
    assert adopted(table, {"a": "va", "b": "vb"}, reports, recorded=True) == table


def test_a_missing_table_is_rebuilt_from_the_volumes() -> None:
    empty = Table.empty("uid", 4)
    table = adopted(empty, {"a": "va", "b": "vb"}, {"a": owned(0, 1), "b": owned(2, 3, epoch=7)}, recorded=False)
    assert [table.owner(shard) for shard in range(4)] == [("a", 1), ("a", 1), ("b", 7), ("b", 7)]


def test_a_shard_given_away_that_nobody_holds_has_no_owner_and_is_not_granted_anew() -> None:
    empty = Table.empty("uid", 3)
    reports = {
        "a": owned(0) + owned(1, epoch=4, state="given") + owned(2, epoch=2, state="given"),
        "b": owned(2, epoch=2),
    }
    table = adopted(empty, {"a": "va", "b": "vb"}, reports, recorded=False)
    assert [table.owner(shard) for shard in range(3)] == [("a", 1), None, ("b", 2)]
    assert table.epoch(1) == 4
    assert plan(table, {"a": "va", "b": "vb"}).grants == {}


def test_shards_of_a_first_start_that_was_cut_short_may_still_be_granted() -> None:
    table = Table.empty("uid", 4).with_volumes({"a": "va", "b": "vb"})
    after = adopted(table, {"a": "va", "b": "vb"}, {"a": owned(0, 1), "b": []}, recorded=True)
    assert plan(after, {"a": "va", "b": "vb"}).grants == {"b": ((2, 1), (3, 1))}


TWO = Table("uid", volumes={"a": "va", "b": "vb"}, owners=["a", "b"], epochs=[2, 2])


@pytest.mark.parametrize(
    ("adopt", "error", "complaint"),
    [
        (
            lambda: adopted(TWO, {"a": "va"}, {"a": owned(0)}, recorded=True),
            PlacementError,
            "b owns shards 1 and is not",
        ),
        (
            lambda: adopted(TWO, {"a": "va", "b": "new"}, {"a": owned(0, epoch=2), "b": []}, recorded=True),
            VolumeLost,
            "b came back with volume new",
        ),
        (
            lambda: adopted(TWO, {"a": "va", "b": "vb"}, {"a": owned(0, epoch=2), "b": []}, recorded=True),
            VolumeLost,
            "b does not hold shards 1",
        ),
        (
            lambda: adopted(TWO, {"a": "va", "b": "vb"}, {"a": owned(0, epoch=2), "b": owned(1)}, recorded=True),
            VolumeLost,
            "b does not hold shards 1",
        ),
        (
            lambda: adopted(
                TWO, {"a": "va", "b": "vb"}, {"a": owned(0, 1, epoch=2), "b": owned(1, epoch=2)}, recorded=True
            ),
            PlacementError,
            "b and a both hold shard 1",
        ),
        (
            lambda: adopted(Table.empty("uid", 3), {"a": "va"}, {"a": owned(0, 1)}, recorded=False),
            PlacementError,
            "no placement table, and no volume holds shards 2",
        ),
        (
            lambda: adopted(Table.empty("uid", 1), {"a": "va"}, {"a": owned(0, 1)}, recorded=True),
            PlacementError,
            "a volume holds shards 1, the namespace has 1",
        ),
    ],
)
def test_volumes_that_contradict_the_table_are_refused(
    adopt: Callable[[], Table], error: type[PlacementError], complaint: str
) -> None:
    with pytest.raises(error, match=complaint):
        adopt()
