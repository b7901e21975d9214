"""What the plan does about volumes, tables and figures that are gone: nothing that was owned once begins empty."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from tests.operator.simulation import Cluster, Refused

from kubeactor_operator import names
from kubeactor_operator.actions import Grant, Mark
from kubeactor_operator.observed import Object

TABLE = (names.PLACEMENT_KIND, "bank")


def lose_table_and_figures(sim: Cluster) -> None:
    """And nobody knows the table any more: all pods were started anew, on nodes that lost what they kept."""
    sim.remove(TABLE)
    sim.published.clear()
    sim.views.clear()
    sim.namespace["status"] = {}


def message(sim: Cluster) -> str:
    return str(next(one for one in sim.status["conditions"] if one["type"] == "Degraded")["message"])


def owners(sim: Cluster) -> dict[int, tuple[str, int] | None]:
    assert sim.table
    return {shard: sim.table.owner(shard) for shard in range(8)}


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


def lose_everything(sim: Cluster) -> None:
    """All but the ActorNamespace itself."""
    for n in range(3):
        sim.lose(f"host-{n}")
    for key in (("StatefulSet", "bank-host"), ("Secret", "bank-peer")):
        sim.remove(key)
    lose_table_and_figures(sim)


def test_that_it_was_placed_is_noted_at_the_namespace_before_the_first_grant() -> None:
    sim = Cluster()
    while not any(isinstance(action, Grant) for action in sim.decide().actions):
        assert not sim.volumes or all(not volume.states for volume in sim.volumes.values())
        sim.step()
    uid = sim.namespace["metadata"]["uid"]
    assert sim.namespace["metadata"]["annotations"] == {"kubeactor.io/placed": uid}


def test_no_shard_is_granted_while_that_cannot_be_noted() -> None:
    sim = Cluster()
    sim.refuse = lambda action: (403, "no annotations here") if isinstance(action, Mark) else None
    for _ in range(30):
        sim.step()
    assert all(not volume.states for volume in sim.volumes.values())
    assert sim.condition("Degraded") == ("True", "RefusedByCluster")
    assert "no annotations here" in message(sim)
    sim.refuse = lambda action: None
    sim.settle()
    assert sim.condition("Degraded") == ("False", "AsExpected")


def test_a_namespace_placed_by_an_older_release_is_noted_too() -> None:
    sim = Cluster()
    sim.settle()
    del sim.namespace["metadata"]["annotations"]
    sim.settle()
    assert "kubeactor.io/placed" in sim.namespace["metadata"]["annotations"]


def test_a_namespace_that_was_placed_does_not_begin_empty_when_all_else_is_lost() -> None:
    sim = Cluster()
    sim.settle()
    lose_everything(sim)
    sim.settle()
    assert [sim.volume(f"host-{n}").states for n in range(3)] == [{}, {}, {}]
    assert sim.condition("Degraded") == sim.condition("Stalled") == ("True", "PlacementIncomplete")
    assert sim.condition("Ready")[0] == "False"
    for n in range(3):
        assert f"`kubeactor forget bank host-{n} --accept-data-loss`" in message(sim)


@pytest.mark.parametrize("knows", ["host-0", "ingress-1"])
def test_a_table_that_is_lost_is_taken_from_who_still_knows_it(knows: str) -> None:
    sim = Cluster()
    sim.settle()
    before, lost = owners(sim), sim.table.shards_of("host-1") if sim.table else []
    sim.lose("host-1")
    view = sim.views[knows]
    lose_table_and_figures(sim)
    sim.views[knows] = view
    sim.settle()
    assert owners(sim) == before
    assert sim.condition("Degraded") == ("True", "VolumeLost")
    assert sim.volume("host-1").states == {}
    sim.forget("host-1")
    sim.settle()
    assert owners(sim) == before | dict.fromkeys(lost, ("host-1", 2))
    assert sim.condition("Ready") == ("True", "Serving")


def forgotten() -> tuple[Cluster, Any]:
    """One whose host-1 lost its volume, which the user gave up; and that volume."""
    sim = Cluster()
    sim.settle()
    first = sim.volume("host-1")
    sim.wipe("host-1")
    sim.settle()
    sim.forget("host-1")
    sim.settle()
    return sim, first


def test_a_forgotten_volume_that_comes_back_with_the_table_lost_is_not_served_for_the_newer_one() -> None:
    sim, first = forgotten()
    before = owners(sim)
    sim.remove(TABLE)
    sim.wipe("host-1")
    sim.volumes[sim.claim("host-1")["metadata"]["uid"]] = first
    sim.settle()
    assert owners(sim) == before
    assert sim.condition("Degraded") == ("True", "VolumeLost")
    assert not any(view.trouble for view in sim.views.values())


def test_who_knows_a_higher_epoch_than_a_rebuilt_table_has_takes_it_in_the_end() -> None:
    sim, first = forgotten()
    later = sim.views["ingress-0"]
    sim.wipe("host-1")
    sim.volumes[sim.claim("host-1")["metadata"]["uid"]] = first
    sim.wiped.clear()
    lose_table_and_figures(sim)
    sim.settle()  # nobody knows of the second volume
    assert sim.condition("Ready") == ("True", "Serving")
    assert {owner and owner[1] for owner in owners(sim).values()} == {1}
    sim.views["ingress-0"] = later
    sim.tick()
    assert "it is older than what is known here" in later.trouble
    sim.settle()
    assert later.trouble == ""
    assert later.table == sim.table
    assert {owner and owner[1] for owner in owners(sim).values()} == {1, 3}
    assert sim.condition("Ready") == ("True", "Serving")
    assert sim.volume("host-1").states == dict.fromkeys(first.states, 3)


@pytest.mark.parametrize("away", [True, False])
def test_an_older_table_that_is_restored_brings_no_forgotten_volume_back(away: bool) -> None:
    sim = Cluster()
    sim.settle()
    assert sim.table
    older = msgspec.to_builtins(sim.table.document())
    sim.wipe("host-1")
    sim.settle()
    sim.forget("host-1")
    sim.settle()
    before = owners(sim)
    if away:
        sim.hung.add("host-1")
        sim.pod("host-1")["status"]["serves"] = False
    else:
        sim.wipe("host-1")
    sim.objects[TABLE]["spec"] = older
    sim._bump(sim.objects[TABLE])
    sim.published.clear()
    sim.settle()
    sim.hung.clear()
    sim.settle()
    assert owners(sim) == before
    assert not any(view.trouble for view in sim.views.values())
    assert sim.condition("Ready") == (("True", "Serving") if away else ("False", "HostsNotServing"))


def test_another_namespace_of_that_name_is_a_new_one() -> None:
    sim = Cluster()
    sim.settle()
    mark = dict(sim.namespace["metadata"]["annotations"])
    for n in range(3):
        sim.lose(f"host-{n}")
    sim.recreate()
    sim.namespace["metadata"]["annotations"] = mark  # as from a backup
    for n in range(3):
        sim.objects.pop(("PersistentVolumeClaim", f"data-bank-host-{n}"), None)
    sim.settle()
    assert sim.condition("Ready") == ("True", "Serving")
    assert sim.namespace["metadata"]["annotations"]["kubeactor.io/placed"] == sim.namespace["metadata"]["uid"]


def test_what_is_lost_with_all_volumes_begins_anew_once_all_hosts_are_forgotten_and_not_again() -> None:
    sim = Cluster()
    sim.settle()
    lose_everything(sim)
    sim.settle()
    sim.forget("host-0")
    sim.settle()
    sim.forget("host-2")
    sim.settle()
    assert "host-1" in message(sim)
    assert "host-2" not in message(sim)
    assert [sim.volume(f"host-{n}").states for n in range(3)] == [{}, {}, {}]
    sim.forget("host-1")
    sim.settle()
    assert sim.condition("Ready") == ("True", "Serving")
    assert sim.condition("Degraded") == ("False", "AsExpected")
    assert sorted(len(sim.volume(f"host-{n}").states) for n in range(3)) == [2, 3, 3]
    assert {owner and owner[1] for owner in owners(sim).values()} == {2}
    lose_everything(sim)  # the annotations are still there
    sim.settle()
    assert [sim.volume(f"host-{n}").states for n in range(3)] == [{}, {}, {}]
    assert sim.condition("Degraded") == ("True", "PlacementIncomplete")


def test_a_host_that_a_rebuilt_table_does_not_know_can_be_forgotten() -> None:
    sim = Cluster()
    sim.settle()
    before = owners(sim)
    lost = sim.table.shards_of("host-1") if sim.table else []
    sim.lose("host-1")
    lose_table_and_figures(sim)
    sim.settle()
    assert sim.table
    assert "host-1" not in sim.table.volumes
    assert "kubeactor forget bank host-1 --accept-data-loss" in message(sim)
    assert "kubeactor forget bank host-2" not in message(sim)
    sim.forget("host-1")
    sim.settle()
    assert sim.condition("Ready") == ("True", "Serving")
    assert owners(sim) == before | dict.fromkeys(lost, ("host-1", 2))


def test_a_host_with_another_volume_and_one_that_the_table_does_not_know_can_both_be_forgotten() -> None:
    sim = Cluster()
    sim.settle()
    sim.lose("host-2")
    lose_table_and_figures(sim)
    sim.settle()
    sim.lose("host-1")
    sim.settle()
    for _ in range(2):  # the first grants make it another loss
        for host in ("host-1", "host-2"):
            sim.forget(host)
        sim.settle()
    assert sim.condition("Ready") == ("True", "Serving")
    assert {owner and owner[0] for owner in owners(sim).values()} == {"host-0", "host-1", "host-2"}


def test_a_forgotten_host_is_waited_for_no_more_but_one_that_was_not_forgotten_is() -> None:
    sim = Cluster()
    sim.settle()
    before = owners(sim)
    sim.lose("host-1")
    sim.hung.add("host-2")
    sim.pod("host-2")["status"]["serves"] = False
    lose_table_and_figures(sim)
    for _ in range(100):
        sim.step()
        sim.tick()
    assert sim.table
    sim.forget("host-1")
    for _ in range(30):
        sim.step()
        sim.tick()
    assert sim.volume("host-1").states == {}
    assert "kubeactor forget bank host-2" in message(sim)
    sim.hung.clear()
    sim.settle()
    assert {shard: owner for shard, owner in owners(sim).items() if owner == before[shard]} == {
        shard: owner for shard, owner in before.items() if owner and owner[0] != "host-1"
    }
    assert {owner for shard, owner in owners(sim).items() if owner != before[shard]} == {("host-1", 2)}


def test_a_forgotten_volume_that_comes_back_is_not_served_and_what_it_held_begins_elsewhere() -> None:
    sim = Cluster()
    sim.settle()
    assert sim.table
    lost, first = sim.table.shards_of("host-1"), sim.volume("host-1")
    sim.wipe("host-1")
    sim.settle()
    sim.forget("host-1")
    sim.settle()
    assert owners(sim)[lost[0]] == ("host-1", 2)
    sim.wipe("host-1")
    sim.volumes[sim.claim("host-1")["metadata"]["uid"]] = first
    sim.settle()
    assert sim.condition("Degraded") == ("True", "VolumeLost")
    sim.forget("host-1")
    sim.settle()
    assert sim.condition("Ready") == ("True", "Serving")
    assert {owners(sim)[shard] for shard in lost} <= {("host-0", 3), ("host-2", 3)}


def test_a_host_that_was_forgotten_while_it_was_well_is_not_forgotten_when_it_is_lost_later() -> None:
    sim = Cluster()
    sim.settle()
    sim.forget("host-1")
    sim.settle()
    assert sim.namespace["metadata"]["annotations"].keys() == {"kubeactor.io/placed"}
    sim.wipe("host-1")
    sim.settle()
    assert sim.condition("Degraded") == ("True", "VolumeLost")
    assert sim.volume("host-1").states == {}


@pytest.mark.parametrize("seen", [True, False])
def test_volumes_to_adopt_that_are_lost_once_they_were_seen_are_not_begun_empty(seen: bool) -> None:
    sim = Cluster()
    sim.settle()
    sim.apply_spec({"hosts": {"storage": {"adopt": True}}})
    sim.recreate()
    if seen:
        sim.step()
    for n in range(3):
        sim.lose(f"host-{n}")
    sim.settle()
    assert [sim.volume(f"host-{n}").states == {} for n in range(3)] == [seen] * 3
    assert sim.condition("Ready")[0] == ("False" if seen else "True")
    assert sim.condition("Degraded")[1] == ("PlacementIncomplete" if seen else "AsExpected")
    for n in range(3 if seen else 0):
        sim.forget(f"host-{n}")
    sim.settle()
    assert sim.condition("Ready") == ("True", "Serving")
