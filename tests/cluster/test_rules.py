"""Each rule of the checker is broken once; a history that breaks none is let pass."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from tests.cluster.rules import Version, broken, restarts

NUMBERS = itertools.count(1)
UID = "uid-1"


def version(kind: str, name: str, event: str = "MODIFIED", **body: Any) -> Version:
    labels = {"kubeactor.io/namespace": "bank", "app.kubernetes.io/component": "host"}
    metadata = {"name": name, "namespace": "space", "labels": labels, "resourceVersion": str(next(NUMBERS))}
    metadata |= {"uid": f"{kind}-{name}"} | body.pop("metadata", {})
    return Version(event, {"kind": kind, "metadata": metadata, **body})


def bank(replicas: int = 2, forget: str = "") -> Version:
    host, _, seen = forget.partition("=")
    metadata = {"annotations": {f"kubeactor.io/forget-{host}": seen} if forget else {}}
    return version("ActorNamespace", "bank", metadata=metadata, spec={"hosts": {"replicas": replicas}})


def table(epochs: str = "0-7:1", a: str = "0-3", b: str = "4-7", *, event: str = "MODIFIED", **more: Any) -> Version:
    volumes = more.pop("volumes", ("va", "vb"))
    hosts = {f"host-{n}": {"volume": v, "shards": s} for n, (v, s) in enumerate(zip(volumes, (a, b), strict=False))}
    spec = {"format": 1, "namespace": UID, "shards": 8, "epochs": epochs, "hosts": hosts} | more
    return version("ActorPlacement", "bank", event, spec=spec)


def stateful_set(template: str, replicas: int = 2, failed: str = "") -> Version:
    annotations = {"kubeactor.io/failed-template": json.dumps({"hash": failed, "message": ""})} if failed else {}
    made = {"metadata": {"annotations": {"kubeactor.io/template": template}}}
    metadata = {"annotations": annotations}
    return version("StatefulSet", "bank-host", metadata=metadata, spec={"replicas": replicas, "template": made})


def pod(
    host: int, template: str, uid: str, event: str = "ADDED", *, ready: bool = False, going: bool = False
) -> Version:
    metadata: dict[str, Any] = {"uid": uid, "annotations": {"kubeactor.io/template": template}}
    metadata |= {"deletionTimestamp": "now"} if going else {}
    status = {"conditions": [{"type": "Ready", "status": str(ready)}]}
    return version("Pod", f"bank-host-{host}", event, metadata=metadata, status=status)


def claim(volume: str = "pv-1", *, event: str = "MODIFIED", going: bool = False) -> Version:
    metadata = {"deletionTimestamp": "now"} if going else {}
    return version("PersistentVolumeClaim", "data-bank-host-0", event, metadata=metadata, spec={"volumeName": volume})


GOOD = {
    "shards are granted": lambda: [table("", "", ""), table()],
    "a table is deleted and made anew": lambda: [table(), table(event="DELETED"), table(event="ADDED")],
    "a shard gets another owner with a higher epoch": lambda: [table(), table("0:2,1-7:1", "1-3", "0,4-7")],
    "a lost volume is forgotten": lambda: [
        table(),
        bank(forget="host-1=vb:uid/1"),
        table("0-3:1,4-7:2", volumes=("va", "new")),
    ],
    "a namespace of that name is made anew": lambda: [table("0-7:5"), table(namespace="uid-2")],
    "templates go forward": lambda: [bank(), stateful_set("a"), stateful_set("b"), stateful_set("b")],
    "a failed template is taken back": lambda: [
        bank(),
        stateful_set("a"),
        pod(0, "a", "1"),
        stateful_set("b"),
        pod(0, "b", "2"),
        stateful_set("a", failed="b"),
        pod(0, "a", "3"),
        stateful_set("c"),
    ],
    "hosts are added": lambda: [bank(), stateful_set("a"), bank(3), stateful_set("a", 3)],
    "a claim is bound": lambda: [claim(""), claim(), claim()],
}
BAD = {
    "both": lambda: [table(b="3-7")],
    "it is no table": lambda: [table(epochs="x")],
    "went back from 2 to 1": lambda: [table("0-7:2"), table()],
    "went back from 1 to 0": lambda: [table(), table(event="DELETED"), table("", "", "", event="ADDED")],
    "shard 0 belongs to host-1 at epoch 1, which was host-0's": lambda: [table(), table(a="1-3", b="0,4-7")],
    "shard 3 belongs to host-1 at epoch 1, which was": lambda: [table(), table(a="0-2"), table(a="0-2", b="3-7")],
    "shard 3 has no owner any more": lambda: [table(), table(a="0-2")],
    "the volume of host-1 changed from vb to new": lambda: [table(), table("0-7:2", volumes=("va", "new"))],
    "changed from vb to other, and nobody forgot it": lambda: [
        bank(forget="host-1=va:uid/1"),
        table(),
        table(volumes=("va", "other")),
    ],
    "host-1 disappeared": lambda: [table("0-3:1", b=""), table("0-3:1", volumes=("va",))],
    "8 shards became 9": lambda: [table(), table(shards=9)],
    "template a came back": lambda: [bank(), stateful_set("a"), stateful_set("b"), stateful_set("a")],
    "template a came back after": lambda: [
        bank(),
        *(stateful_set(one, failed="b") for one in "abac"),
        stateful_set("a", failed="b"),
    ],
    "3 replicas": lambda: [bank(), stateful_set("a", 3), bank(3)],
    "made from template a after a newer one": lambda: [pod(0, "a", "1"), pod(0, "b", "2"), pod(0, "a", "3")],
    "it is deleted": lambda: [claim(), claim(going=True)],
    "data-bank-host-0 at": lambda: [claim(), claim(event="DELETED")],
    "it was bound to pv-1 and is to pv-2": lambda: [claim(), claim("pv-2")],
}


@pytest.mark.parametrize("name", GOOD)
def test_what_is_right_is_let_pass(name: str) -> None:
    history = GOOD[name]()
    assert broken(history) == []
    assert broken(reversed(history)) == [], "the order is that of the numbers"


@pytest.mark.parametrize("says", BAD)
def test_each_broken_rule_is_told(says: str) -> None:
    found = broken(BAD[says]())
    assert any(says in one for one in found), found


def test_what_the_test_itself_did_breaks_no_rule() -> None:
    old = table()
    assert broken([table("0-7:2"), old, table("0-7:2")], by_hand=[old.number]) == []
    assert broken([table("0-7:2"), old, table("0-7:1")], by_hand=[old.number]) != []
    assert broken([claim(going=True)], given_up=["data-bank-host-0"]) == []


def test_hosts_that_are_restarted_one_at_a_time_and_once_are_let_pass() -> None:
    rollout = []
    for host in (0, 1):
        rollout += [pod(host, "a", f"a{host}"), pod(host, "a", f"a{host}", "MODIFIED", ready=True)]
    for host in (1, 0):
        rollout += [pod(host, "a", f"a{host}", event, going=True) for event in ("MODIFIED", "DELETED")]
        rollout += [pod(host, "b", f"b{host}"), pod(host, "b", f"b{host}", "MODIFIED", ready=True)]
    assert restarts(rollout) == []


def test_a_host_that_is_restarted_while_another_is_away_is_told() -> None:
    history = [
        pod(0, "a", "a0", ready=True),
        pod(1, "a", "a1", ready=False),
        pod(0, "a", "a0", "MODIFIED", ready=True, going=True),
    ]
    assert restarts(history) == ["bank-host-0 was deleted while bank-host-1 was away"]


def test_a_host_that_is_put_back_on_its_old_template_is_none_that_was_restarted_without_need() -> None:
    assert restarts([pod(0, "a", "1"), pod(0, "b", "2"), pod(0, "a", "3")]) == []


def test_a_host_that_is_restarted_without_need_is_told() -> None:
    assert restarts([pod(0, "a", "1"), pod(0, "a", "1", "DELETED"), pod(0, "a", "2")]) == [
        "bank-host-0 was made twice from template a"
    ]
