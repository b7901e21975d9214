"""The planner against random histories: hosts come, go, lose their volumes; the table stays one that may be served."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kubeactor.placement import Table, plan

HOSTS = [f"host-{n}" for n in range(6)]
hosts = st.sets(st.sampled_from(HOSTS), min_size=1)
histories = st.lists(hosts, min_size=1, max_size=6)


def volumes(members: set[str]) -> dict[str, str]:
    return {host: f"volume of {host}" for host in members}


def applied(table: Table, members: set[str]) -> Table:
    """The table after all that the planner asks for was done."""
    todo = plan(table, volumes(members))
    table = table.with_volumes(volumes(members))
    grants = [(shard, host, epoch) for host, pairs in todo.grants.items() for shard, epoch in pairs]
    return table.assigned(grants + [(move.shard, move.target, move.epoch) for move in todo.moves])


@given(st.integers(1, 200), histories)
def test_each_shard_has_one_owner_and_hosts_have_equal_shares(shards: int, history: list[set[str]]) -> None:
    table = Table.empty("uid", shards)
    for members in history:
        before, table = table, applied(table, members)
        owners = [table.owner(shard) for shard in range(shards)]
        assert all(owner and owner[0] in members for owner in owners)
        counts = [len(table.shards_of(host)) for host in members]
        assert sum(counts) == shards
        assert max(counts) - min(counts) <= 1
        assert all(table.epoch(shard) >= before.epoch(shard) for shard in range(shards))
        kept = [s for s in range(shards) if before.owner(s) and table.owner(s)[0] == before.owner(s)[0]]  # type: ignore[index]
        assert all(table.epoch(shard) == before.epoch(shard) for shard in kept), "who stays keeps its epoch"
        assert Table.from_json(table.to_json()) == table
        again = plan(table, volumes(members))
        assert (again.grants, again.moves) == ({}, ()), "a balanced table stays as it is"


@given(st.integers(1, 200), hosts, st.sampled_from(HOSTS))
def test_a_host_that_joins_moves_only_its_share(shards: int, members: set[str], joining: str) -> None:
    table = applied(Table.empty("uid", shards), members)
    todo = plan(table, volumes(members | {joining}))
    if joining in members:
        assert todo.moves == ()
    else:
        assert len(todo.moves) == shards // (len(members) + 1)
        assert {move.target for move in todo.moves} <= {joining}


@given(st.integers(1, 200), hosts, st.sampled_from(HOSTS))
def test_a_host_that_leaves_moves_only_its_own(shards: int, members: set[str], leaving: str) -> None:
    table = applied(Table.empty("uid", shards), members)
    todo = plan(table, volumes((members - {leaving}) or {"host-new"}))
    gone = members if members == {leaving} else members & {leaving}
    assert sorted(move.shard for move in todo.moves) == sorted(s for host in gone for s in table.shards_of(host))


@given(st.integers(1, 200), hosts, st.sampled_from(HOSTS))
def test_a_lost_volume_moves_nothing_and_gets_nothing(shards: int, members: set[str], unlucky: str) -> None:
    table = applied(Table.empty("uid", shards), members)
    seen = volumes(members) | {unlucky: "another volume"}
    todo = plan(table, seen)
    touched = {move.target for move in todo.moves} | {move.source for move in todo.moves} | set(todo.grants)
    assert set(todo.lost) == {unlucky} & members
    assert not touched & set(todo.lost)


@given(st.integers(1, 200), histories)
def test_the_plan_depends_on_nothing_but_its_arguments(shards: int, history: list[set[str]]) -> None:
    table = Table.empty("uid", shards)
    for members in history:
        forward, backward = (dict(sorted(volumes(members).items(), reverse=way)) for way in (False, True))
        assert plan(table, forward) == plan(Table.from_json(table.to_json()), backward)
        table = applied(table, members)
