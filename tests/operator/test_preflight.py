"""The pod that tries a template, on a node that does not run it."""

from __future__ import annotations

from tests.operator.simulation import Cluster

from kubeactor_operator.observed import Object


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
