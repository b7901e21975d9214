"""The pod that tries a template, on a node that does not run it."""

from __future__ import annotations

from tests.operator.simulation import Cluster

from kubeactor_operator import names
from kubeactor_operator.observed import Object

STATEFUL_SET = ("StatefulSet", "bank-host")


def tried(sim: Cluster) -> bool:
    return any(kind == "Pod" and "preflight" in name for kind, name in sim.objects)


def image(sim: Cluster) -> str:
    return str(sim.objects[STATEFUL_SET]["spec"]["template"]["spec"]["containers"][0]["image"])


def test_a_pod_that_each_node_refuses_is_made_anew_every_15_s_and_says_nothing_about_the_template() -> None:
    sim = Cluster()
    sim.settle()
    tried: set[str] = set()

    def refused(pod: Object, image: str) -> None:
        tried.add(pod["metadata"]["uid"])
        pod["status"] = {"phase": "Failed", "reason": "OutOfcpu"}

    tries = sim._preflight
    sim._preflight = refused  # type: ignore[method-assign]
    sim.apply_spec({"image": "bank:2"})
    began = sim.now
    while sim.now - began < 60:
        sim.step()
    assert 3 <= len(tried) <= 5
    assert sim.condition("Progressing") == ("True", "TryingTemplate")
    assert sim.condition("Degraded") == ("False", "AsExpected")
    sim._preflight = tries  # type: ignore[method-assign]
    sim.settle()
    assert {sim.pod(f"host-{n}")["spec"]["containers"][0]["image"] for n in range(3)} == {"bank:2"}


def test_a_stateful_set_deleted_by_hand_is_made_anew_at_once_since_every_host_served_on_its_template() -> None:
    sim = Cluster()
    sim.settle()
    before = {uid: dict(volume.states) for uid, volume in sim.volumes.items()}
    sim.remove(STATEFUL_SET)
    sim.step()
    assert STATEFUL_SET in sim.objects
    assert not tried(sim)
    sim.settle()
    assert {uid: dict(volume.states) for uid, volume in sim.volumes.items()} == before
    assert sim.condition("Ready") == ("True", "Serving")


def test_one_that_shall_have_another_template_by_now_is_made_only_once_that_was_tried() -> None:
    sim = Cluster()
    sim.settle()
    sim.bad_images = {"bank:bad"}
    sim.apply_spec({"image": "bank:bad"})
    sim.remove(STATEFUL_SET)
    sim.settle()
    assert STATEFUL_SET not in sim.objects
    assert sim.condition("Degraded") == ("True", "PreflightFailed")
    sim.apply_spec({"image": "bank:2"})
    sim.step()
    assert STATEFUL_SET not in sim.objects
    assert tried(sim)
    sim.settle()
    assert image(sim) == "bank:2"
    assert sim.condition("Ready") == ("True", "Serving")


def test_a_template_that_not_every_host_served_on_is_tried_again_and_so_is_one_that_nobody_remembers() -> None:
    sim = Cluster()
    sim.settle()
    sim.crashing.add("bank:crash")
    sim.apply_spec({"image": "bank:crash"})
    while image(sim) != "bank:crash" or tried(sim):
        sim.step()
    sim.remove(STATEFUL_SET)
    sim.step()
    assert STATEFUL_SET not in sim.objects
    sim.crashing.clear()
    sim.settle()
    for key in (STATEFUL_SET, ("Deployment", "bank-ingress")):
        sim.remove(key)
    sim.step()
    assert STATEFUL_SET not in sim.objects


def test_the_word_of_somebody_elses_deployment_does_not_count() -> None:
    sim = Cluster()
    sim.settle()
    sim.objects[("Deployment", "bank-ingress")]["metadata"]["ownerReferences"] = []
    sim.remove(STATEFUL_SET)
    sim.step()
    assert STATEFUL_SET not in sim.objects


def test_what_is_remembered_of_the_hosts_restarts_no_ingress() -> None:
    sim = Cluster()
    sim.settle()
    live = sim.objects[("Deployment", "bank-ingress")]
    generation = live["metadata"]["generation"]
    del live["metadata"]["annotations"][names.SERVED]  # as an older release left it
    sim.settle()
    assert names.SERVED in live["metadata"]["annotations"]
    assert live["metadata"]["generation"] == generation
