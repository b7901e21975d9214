"""Who a pod is, by its environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubeactor.pod.identity import Pod, PodError, host_of

GOOD = {
    "KUBEACTOR_NAME": "bank",
    "KUBEACTOR_UID": "0f3c1f6e-7c1d-4f3e-9d53-0a8f5f0b8a11",
    "KUBEACTOR_SHARDS": "64",
    "POD_NAME": "bank-host-2",
    "POD_NAMESPACE": "shop",
}


def test_the_environment_of_the_operator_is_taken() -> None:
    more = {"KUBEACTOR_METHOD_TIMEOUT_S": "5", "KUBEACTOR_ALARM_TIMEOUT_S": "900", "KUBEACTOR_PEER_DIR": "/peers"}
    pod = Pod.of({**GOOD, **more, "KUBEACTOR_ADOPT": "true"}, host=True)
    assert (pod.name, pod.shards, pod.pod, pod.namespace, pod.host) == ("bank", 64, "bank-host-2", "shop", "host-2")
    assert (pod.method_timeout_s, pod.alarm_timeout_s, pod.adopt, pod.peer_dir) == (5.0, 900.0, True, Path("/peers"))


def test_what_may_be_left_out_has_its_default() -> None:
    pod = Pod.of({**GOOD, "POD_NAME": "bank-ingress-5f7-x"}, host=False)
    assert (pod.host, pod.method_timeout_s, pod.alarm_timeout_s, pod.adopt) == (None, 30.0, 30.0, False)
    assert pod.peer_dir == Path("/etc/kubeactor/peer")


def test_all_that_is_missing_is_told_at_once() -> None:
    with pytest.raises(PodError) as caught:
        Pod.of({}, host=True)
    assert all(f"{name} is missing" in str(caught.value) for name in GOOD)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("KUBEACTOR_NAME", "Bank"),
        ("KUBEACTOR_NAME", "b" * 41),
        ("KUBEACTOR_UID", "a b"),
        ("KUBEACTOR_SHARDS", "0"),
        ("KUBEACTOR_SHARDS", "4097"),
        ("KUBEACTOR_SHARDS", "²"),
        ("KUBEACTOR_METHOD_TIMEOUT_S", "nan"),
        ("KUBEACTOR_METHOD_TIMEOUT_S", "301"),
        ("KUBEACTOR_ALARM_TIMEOUT_S", "-1"),
        ("KUBEACTOR_ALARM_TIMEOUT_S", "901"),
        ("KUBEACTOR_ADOPT", "yes"),
        ("POD_NAME", "bank/host"),
        ("POD_NAME", "bank-ingress-1"),
        ("POD_NAME", "other-host-0"),
        ("POD_NAMESPACE", "Shop"),
    ],
)
def test_a_malformed_variable_is_named_with_its_value(variable: str, value: str) -> None:
    with pytest.raises(PodError) as caught:
        Pod.of({**GOOD, variable: value}, host=True)
    assert variable in str(caught.value)
    assert repr(value)[:80] in str(caught.value)


@pytest.mark.parametrize("pod", ["bank-host-", "bank-host-01", "bank-host--1", "bank-host-1-x", "xbank-host-1", ""])
def test_only_the_names_of_a_stateful_set_are_hosts(pod: str) -> None:
    assert host_of("bank", pod) is None
    assert host_of("bank", "bank-host-10") == "host-10"
