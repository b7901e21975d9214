"""What users get wrong, in a namespace that runs and is called: it is told, and nothing else changes.

The rows of docs/user-errors.md that a condition reports, but two: volumes of an earlier namespace are in test_bank.py,
a full disk in test_volumes.py. A class that makes no volume can only be the mistake of a new namespace. What the API
server refuses is in tests/operator/test_admission.py.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from tests.cluster.bank import SMALL, Bank, Callers
from tests.cluster.conftest import lasting_space
from tests.cluster.many import Many
from tests.cluster.nodes import Cluster
from tests.cluster.published import Published
from tests.cluster.volumes import local_volume
from tests.operator.user_errors import CONDITIONS

pytestmark = pytest.mark.kindnodes

LINE = "MAX = 2**63 - 1\n"
# Changes of the bank's code: a setting that nobody gives, a host that ends, a host of a release to come.
CODE = {
    "needs-fee": ("ACCOUNT: Binding[Account]\n", "ACCOUNT: Binding[Account]\n    FEE: int\n"),
    "crashes": (LINE, f"{LINE}import sys\nif 'host' in sys.argv:\n    raise SystemExit('the host has bad luck')\n"),
    "to-come": (LINE, f"{LINE}import kubeactor.pod.report\nkubeactor.pod.report.VERSION = 99\n"),
}


class Mistake(msgspec.Struct, frozen=True):
    """One change of the spec: its row, words of the condition, and how it is mended."""

    title: str
    spec: dict[str, Any]
    says: str
    mend: dict[str, Any]
    type: str = "Degraded"


MISTAKES = {
    "class": Mistake(
        "A class or front door that can't be imported, or is none",
        {"actors": [{"binding": "ACCOUNT", "class": "bank:Nobody"}]},
        "Nobody",
        {"actors": [{"binding": "ACCOUNT", "class": "bank:Account"}]},
    ),
    "front door": Mistake(
        "A class or front door that can't be imported, or is none",
        {"frontDoor": "bank:entrance"},
        "entrance",
        {"frontDoor": "bank:app"},
    ),
    "setting": Mistake(
        "A setting of the Env that is missing or wrong",
        {"code": {"configMap": "needs-fee"}},
        "FEE",
        {"code": {"configMap": "bank-code"}},
    ),
    "image of nobody": Mistake(
        "An image that can't be pulled",
        {"image": "registry.invalid/nobody:1"},
        "registry.invalid/nobody:1",
        {"image": None},
    ),
    "image without kubeactor": Mistake(
        "A class or front door that can't be imported, or is none",
        {"image": "localhost/shell:1"},  # each node of the tests has it
        "check",
        {"image": None},
    ),
    "code": Mistake(
        "A code ConfigMap that does not exist",
        {"code": {"configMap": "nowhere"}},
        "kubectl create configmap nowhere --from-file=FILE.py",
        {"code": {"configMap": "bank-code"}},
    ),
    "toleration": Mistake(
        "Pod settings that Kubernetes refuses (a toleration, an affinity, a volume)",
        {"hosts": {"tolerations": [{"operator": "Nonsense"}]}},
        "Nonsense",
        {"hosts": {"tolerations": None}},
    ),
    "node": Mistake(
        "Pods that no node takes, or a class that makes no volume",
        {"hosts": {"nodeSelector": {"nobody": "has"}}},
        "node affinity/selector",
        {"hosts": {"nodeSelector": None}},
    ),
    "hosts": Mistake(
        "Other hosts than now, which needs shards to move",
        {"hosts": {"replicas": 1}},
        "2 hosts own shards; 1 are wanted",
        {"hosts": {"replicas": 2}},
        type="Progressing",
    ),
}


@pytest.fixture(scope="module")
def running(cluster: Cluster, operator: None, published: Published, many: Many) -> Iterator[Bank]:
    """While all of this happens, nothing does to `many` (test_operator_with_many.py)."""
    with lasting_space(cluster, "errors") as space:
        made = Bank(space, spec=SMALL)
        for name, (part, other) in CODE.items():
            config = copy.deepcopy(made.code)
            config["metadata"]["name"] = name
            config["data"]["bank.py"] = config["data"]["bank.py"].replace(part, other)
            assert config["data"] != made.code["data"]
            space.apply(config)
        made.apply()
        made.serves()
        yield made
        published.check(space.name)


def class_of_nobody(running: Bank) -> str:
    """The name of a storage class that nobody makes volumes of."""
    return f"nobody-{running.space.name}"


@pytest.fixture(scope="module", autouse=True)
def waiting(cluster: Cluster, running: Bank) -> Bank:
    """A bank of that class, from the first test on: two minutes pass until hosts that are being made count as stuck."""
    name = class_of_nobody(running)
    storage_class = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name}}
    cluster.kube.apply(storage_class | {"provisioner": "nobody.example/nothing"})
    spec = copy.deepcopy(SMALL)
    spec["hosts"] |= {"replicas": 1, "storage": {"size": "64Mi", "storageClassName": name}}
    bank = Bank(running.space, "waiting", spec)
    bank.apply()
    return bank


def told(running: Bank, title: str, says: str, type: str = "Degraded") -> dict[str, Any]:
    """The condition with its reason and a sentence, and an Event of the same; nobody who calls is kept from it."""
    reason = CONDITIONS[title]
    one = running.is_(type, "True", reason)
    assert says in one["message"], one["message"]
    assert running.condition("Ready")["status"] == "True"

    def event() -> bool:
        chosen = f"involvedObject.name={running.name},involvedObject.kind=ActorNamespace,reason={reason}"
        found = running.space.get("events", "--field-selector", chosen)["items"]
        return any(says in each["message"] for each in found)

    running.space.until(event, f"an Event {reason}: {says}", 60)
    return one


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_changes_nothing_that_runs_and_is_mended(running: Bank, name: str) -> None:
    mistake, before = MISTAKES[name], running.uids()
    with Callers(running) as callers:
        running.patch(**mistake.spec)
        told(running, mistake.title, mistake.says, mistake.type)
        callers.all_past(2)
        assert running.uids() == before
        running.patch(**mistake.mend)
        running.serves()
    assert running.uids() == before


def test_an_object_that_is_somebody_elses_is_left_alone(running: Bank) -> None:
    space, before = running.space, running.uids()
    mine = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "bank-api"}, "spec": {"ports": [{"port": 1}]}}
    with Callers(running) as callers:
        space.kubectl("annotate", "actorns", "bank", "kubeactor.io/paused=true")
        running.is_("Paused", "True", "PausedByAnnotation")
        space.kubectl("delete", "service", "bank-api")
        space.apply(mine)
        space.kubectl("annotate", "actorns", "bank", "kubeactor.io/paused-")
        told(running, "An object of a child's name that is not ours", "Service bank-api")
        callers.all_past(2)
        assert space.get("service", "bank-api")["spec"]["ports"][0]["port"] == 1
        space.kubectl("delete", "service", "bank-api")
        running.serves()
        assert space.get("service", "bank-api")["metadata"]["ownerReferences"]
    assert running.uids() == before


def test_a_crashing_class_in_an_update_takes_one_host_down_and_is_put_back(running: Bank) -> None:
    """The preflight passes: it crashes only as a host."""
    before = running.uids()
    with Callers(running) as callers:
        running.patch(code={"configMap": "crashes"})
        told(running, "New code that starts, but ends again and again", "the host has bad luck")
        callers.all_past(2)
        assert running.uids()["bank-host-0"] == before["bank-host-0"], "the other one was not touched"
        running.is_("Ready", "True", "Serving")
        running.patch(code={"configMap": "bank-code"})
        running.serves()
    assert running.uids()["bank-host-0"] == before["bank-host-0"]


def test_a_quota_that_refuses_a_pod_is_told_and_the_update_goes_on_once_it_is_raised(running: Bank) -> None:
    space, before = running.space, running.uids()
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"}, "spec": {"hard": {"pods": "3"}}}
    with Callers(running) as callers:
        space.apply(quota)
        space.until(lambda: space.get("quota", "few").get("status", {}).get("used"), "the quota counts")
        running.patch(code={"configMap": "to-come"})
        told(running, "A quota, policy or webhook that refuses a child", "exceeded quota: few")
        callers.all_past(2)
        assert running.uids() == before
        space.kubectl("delete", "quota", "few")
        # Hosts of a release that this operator does not speak, by now: it says so, and they serve.
        title = "An image with a release of kubeactor that the operator does not speak"
        told(running, title, "this operator speaks 1")
        running.is_("Progressing", "False", "Stopped")
        callers.all_past(2)
        assert not set(running.uids().values()) & set(before.values())
        running.patch(code={"configMap": "bank-code"}, env=[{"name": "AGAIN", "value": "yes"}])
        running.serves()


def test_a_volume_that_can_not_grow_stays_as_it_is(running: Bank) -> None:
    before = running.uids()
    with Callers(running) as callers:
        running.patch(hosts={"storage": {"size": "128Mi"}})
        told(running, "A bigger volume of a class that can't expand", "can't expand data-bank-host-")
        callers.all_past(2)
        assert running.uids() == before
        assert {one["spec"]["resources"]["requests"]["storage"] for one in running.space.get("pvc")["items"]} == {
            "64Mi"
        }


def test_a_class_that_makes_no_volume_is_told_and_its_hosts_serve_once_there_is_one(
    cluster: Cluster, running: Bank, waiting: Bank
) -> None:
    space, kube, name = running.space, cluster.kube, class_of_nobody(running)
    one = waiting.is_("Degraded", "True", CONDITIONS[MISTAKES["node"].title])
    assert "unbound immediate PersistentVolumeClaims" in one["message"], one["message"]
    assert waiting.condition("Ready")["status"] == "False"
    node = space.get("pod", running.hosts[0])["spec"]["nodeName"]
    (mode,) = space.get("pvc", "data-waiting-host-0")["spec"]["accessModes"]
    cluster.on_node(node, "mkdir", f"/var/{name}")
    kube.apply(local_volume(name, node, f"/var/{name}", "64Mi", name, mode))
    waiting.serves()
    assert waiting.deposit("alice", 5) == 5
    space.kubectl("delete", "actorns", "waiting")
    kube.kubectl("delete", "storageclass", name)
    kube.kubectl("delete", "pv", name, "--wait=false")  # it goes with its claim
