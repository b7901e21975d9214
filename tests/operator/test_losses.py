"""What the plan does about volumes, tables and figures that are gone: nothing that was owned once begins empty."""

from __future__ import annotations

import pytest
from tests.operator.simulation import Cluster, Refused

from kubeactor_operator import names
from kubeactor_operator.actions import Grant
from kubeactor_operator.observed import Object

TABLE = (names.PLACEMENT_KIND, "bank")


def lose_table_and_figures(sim: Cluster) -> None:
    sim.remove(TABLE)
    sim.published.clear()
    sim.namespace["status"] = {}


def test_a_grant_of_a_leader_that_was_paused_does_not_begin_another_volume() -> None:
    sim = Cluster()
    late: list[Grant] = []
    while not late:
        sim.step()
        late = [action for action in sim.decide().actions if isinstance(action, Grant) and action.host == "host-0"]
    sim.settle()
    sim.wipe("host-0")
    with pytest.raises(Refused):
        sim.do(late[0])
    sim.settle()
    assert sim.volume("host-0").states == {}
    assert sim.condition("Degraded") == ("True", "VolumeLost")


def test_shards_of_a_lost_volume_do_not_begin_empty_without_table_and_status() -> None:
    sim = Cluster()
    sim.settle()
    sim.wipe("host-1")
    lose_table_and_figures(sim)
    sim.settle()
    assert sim.volume("host-1").states == {}
    assert sim.condition("Degraded") == ("True", "PlacementIncomplete")
    assert sim.condition("Ready")[0] == "False"


@pytest.mark.parametrize("figures", [True, False])
def test_a_host_that_did_not_report_to_a_rebuild_keeps_its_volume_when_hosts_are_scaled_in(figures: bool) -> None:
    sim = Cluster({"hosts": {"replicas": 3, "storage": {"reclaim": "Delete"}}})
    sim.settle()
    table = sim.table
    assert table
    held = dict(sim.volume("host-2").states)
    sim.hung.add("host-2")
    sim.pod("host-2")["status"]["serves"] = False
    if figures:
        sim.remove(TABLE)
        sim.published.clear()
    else:
        lose_table_and_figures(sim)
    sim.apply_spec({"hosts": {"replicas": 1, "storage": {"reclaim": "Delete"}}})
    for _ in range(100):
        sim.step()
        sim.tick()
    assert sim.table
    assert sim.volume("host-2").states == held
    sim.hung.clear()
    sim.settle()
    assert sim.table
    assert {s: sim.table.owner(s) for s in range(8)} == {s: table.owner(s) for s in range(8)}
    assert sim.condition("Ready") == ("True", "Serving")


def test_a_shard_that_two_hosts_hold_has_no_owner_while_one_of_them_is_silent() -> None:
    sim = Cluster()
    sim.settle()
    table = sim.table
    assert table
    shard = table.shards_of("host-0")[0]
    sim.volume("host-1").states[shard] = 1
    sim.settle()
    assert sim.table
    assert sim.table.owner(shard) is None
    sim.silent.add("host-1")
    for _ in range(20):
        sim.step()
    assert sim.table.owner(shard) is None
    del sim.volume("host-1").states[shard]
    sim.silent.clear()
    sim.settle()
    assert sim.table.owner(shard) == ("host-0", 1)


def test_a_stateful_set_that_remembers_the_way_back_is_not_replaced_to_grow_its_claims() -> None:
    def live() -> Object:
        return sim.objects[("StatefulSet", "bank-host")]

    sim = Cluster()
    sim.settle()
    before = live()["metadata"]["uid"]
    sim.crashing.add("bank:crash")
    sim.apply_spec({"image": "bank:crash"})
    sim.settle()
    sim.apply_spec({"hosts": {"replicas": 3, "storage": {"size": "2Gi"}}})
    for _ in range(5):
        sim.step()
    for n in range(3):
        sim.claim(f"host-{n}")["status"]["capacity"]["storage"] = "2Gi"
    sim.settle()
    assert sim.condition("Degraded") == ("True", "RolloutStopped")
    assert live()["metadata"]["uid"] == before
    assert names.FAILED in live()["metadata"]["annotations"]
    sim.apply_spec({"image": "bank:2"})
    sim.settle()
    assert live()["metadata"]["uid"] != before
    assert live()["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"] == "2Gi"
    assert sim.condition("Progressing") == ("False", "UpToDate")
    assert {sim.pod(f"host-{n}")["spec"]["containers"][0]["image"] for n in range(3)} == {"bank:2"}
