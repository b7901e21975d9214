"""Names that hosts, charts and upgrades rely on: they never change."""

from __future__ import annotations

import pytest

from kubeactor_operator import names

LONGEST = "b" * 40  # as the CRD allows it


def test_the_children_of_bank() -> None:
    assert names.host("bank") == "bank-host"
    assert names.ingress("bank") == "bank-ingress"
    assert names.service("bank") == "bank"
    assert names.api_service("bank") == "bank-api"
    assert names.peer_secret("bank") == "bank-peer"
    assert names.code_config_map("bank", "0a1b2c3d4e") == "bank-code-0a1b2c3d4e"
    assert names.preflight("bank", "0a1b2c3d4e") == "bank-preflight-0a1b2c3d4e"
    assert names.claim("bank", "host-2") == "data-bank-host-2"


@pytest.mark.parametrize(
    ("pod", "expected"),
    [
        ("bank-host-2", "host-2"),
        ("bank-host-0", "host-0"),
        ("bank-host-02", None),
        ("bank-host-", None),
        ("bank-host-x", None),
        ("bank-ingress-2", None),
        ("other-host-2", None),
        ("bank-host-host-2", None),
    ],
)
def test_a_pod_tells_its_host_id(pod: str, expected: str | None) -> None:
    assert names.host_id("bank", pod) == expected
    if expected:
        assert names.pod("bank", expected) == pod


def test_a_namespace_may_be_named_like_a_host() -> None:
    assert names.host_id("bank-host", "bank-host-host-2") == "host-2"


def test_the_longest_name_leaves_room_for_every_child() -> None:
    longest = [
        names.preflight(LONGEST, "0" * 10),
        names.code_config_map(LONGEST, "0" * 10),
        f"{names.host(LONGEST)}-{'0' * 10}",  # controller-revision-hash, a label value
        names.pod(LONGEST, "host-9999"),
    ]
    assert all(len(name) <= 63 for name in longest)


def test_labels_and_selectors_agree_and_are_valid() -> None:
    labels = names.labels("bank", names.HOST)
    assert labels == {
        "app.kubernetes.io/name": "kubeactor",
        "app.kubernetes.io/instance": "bank",
        "app.kubernetes.io/component": "host",
        "app.kubernetes.io/managed-by": "kubeactor",
        "kubeactor.io/namespace": "bank",
    }
    assert names.selector("bank", names.HOST).items() <= labels.items()
    assert names.selector_text("bank", names.HOST) == "app.kubernetes.io/component=host,kubeactor.io/namespace=bank"
    assert "app.kubernetes.io/component" not in names.labels("bank")
