"""Operators that are killed, that are two, that wake up with an old spec: what they publish stays right, calls go on.

A checker (rules.py) compares every version that was published of table, StatefulSet, pods and claims.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.bank import SMALL, Bank, Callers
from tests.cluster.beside import metric, operator
from tests.cluster.conftest import HOME, lasting_space
from tests.cluster.kube import until
from tests.cluster.leader import Leader
from tests.cluster.nodes import Cluster, Images
from tests.cluster.published import Published
from tests.cluster.rules import Version

pytestmark = pytest.mark.kindnodes

PAUSED_S = 60.0


@pytest.fixture(scope="module")
def small(cluster: Cluster, operator: None, published: Published) -> Iterator[Bank]:
    """Not applied yet; each test leaves it as well as it was."""
    with lasting_space(cluster, "faults") as space:
        yield Bank(space, spec=SMALL)


def level(of: dict[str, Any]) -> str:
    """The variable that the tests raise with each spec, as a pod spec has it."""
    env = of["containers"][0]["env"]
    return next((one["value"] for one in env if one["name"] == "LEVEL"), "0")


def applied(small: Bank) -> Bank:
    """Whichever tests ran before."""
    small.apply()
    small.serves()
    return small


def raise_level(small: Bank, to: int) -> None:
    small.patch(env=[{"name": "LEVEL", "value": str(to)}])


def all_at(small: Bank, wanted: int) -> None:
    """Hosts, ingress and what new pods are made from have it."""
    small.serves()
    chosen = f"kubeactor.io/namespace={small.name},app.kubernetes.io/component in (host,ingress)"
    pods = small.space.get("pods", "-l", chosen)["items"]
    pods = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    made = small.space.get("statefulset", f"{small.name}-host")["spec"]["template"]
    assert {level(one["spec"]) for one in (*pods, made)} == {str(wanted)}
    assert len(pods) == 3


def a_host_is_going(version: Version) -> bool:
    return version.going and "-host-" in version.place[1]


def test_an_operator_that_is_killed_in_the_middle_makes_and_updates_a_namespace_all_the_same(
    cluster: Cluster, published: Published, small: Bank
) -> None:
    space, killed_at = small.space.name, 0.0

    def kill(what: str) -> None:
        nonlocal killed_at
        leader = Leader(cluster, since=killed_at)
        leader.signal("KILL")
        killed_at = time.time()
        print(f"killed {leader.name} when {what}")

    small.apply()
    published.until(space, "StatefulSet", lambda _: True, "the StatefulSet")
    kill("the hosts were being made")
    published.until(space, "ActorPlacement", lambda _: True, "the first table")
    kill("the shards were being granted")
    small.serves()
    with Callers(small):
        raise_level(small, 1)
        published.until(space, "Pod", a_host_is_going, "a host is restarted")
        kill("a host was being restarted")
        all_at(small, 1)
    published.check(space)


def test_two_operators_at_once_make_and_update_namespaces_as_one_would(
    images: Images, published: Published, small: Bank, tmp_path: Path
) -> None:
    """The second one believes to lead too: it has another Lease."""
    space = small.space
    other = Bank(space, "other", SMALL | {"hosts": {**SMALL["hosts"], "replicas": 1}})
    with operator(space.kube, space.name, images, tmp_path / "log") as second:

        def leads() -> bool:
            try:
                return metric(second.metrics(), "kubeactor_operator_reconcile_seconds_count") > 0
            except OSError:
                return False  # it does not listen yet

        until(leads, "the second operator looks after the namespace", 60)
        with Callers(applied(small)):
            other.apply()
            raise_level(small, 2)
            space.kubectl("delete", "actorpl", small.name)
            all_at(small, 2)
            other.serves()
        text = second.metrics()
    wrote = metric(text, "kubeactor_operator_actions_total")
    refused = metric(text, "kubeactor_operator_reconcile_errors_total")
    print(f"the second operator wrote {wrote:.0f} times and was refused {refused:.0f} times")
    assert wrote + refused > 0
    published.check(space.name)


def test_a_leader_that_was_paused_for_a_minute_and_wakes_with_an_old_spec_changes_nothing(
    cluster: Cluster, published: Published, small: Bank
) -> None:
    space = small.space.name
    with Callers(applied(small)) as callers:
        raise_level(small, 3)
        published.until(space, "StatefulSet", lambda one: level_of_template(one) == "3", "the new template")
        leader, paused_at = Leader(cluster), time.time()
        leader.signal("STOP")
        wakes = threading.Timer(PAUSED_S, leader.signal, ["CONT"])
        wakes.start()
        try:
            raise_level(small, 4)
            successor = Leader(cluster, since=paused_at + 1)
            assert successor.name != leader.name
            callers.all_past(1)
        finally:
            wakes.join()
        until(leader.gone, "it ends, since it is not the leader any more", 60)
        callers.all_past(5)
        all_at(small, 4)
    cluster.kube.kubectl("-n", HOME, "rollout", "status", "deployment", "kubeactor", "--timeout=120s")
    published.check(space)


def level_of_template(version: Version) -> str:
    return level(version.object["spec"]["template"]["spec"])
