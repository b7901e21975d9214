"""Objects of the API server as a placement."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.harness.fake_api import placement, slice_of

from kubeactor.placement import PlacementError, Table
from kubeactor.placement_file import Placement
from kubeactor.pod.identity import Pod
from kubeactor.pod.view import View, addresses_of, table_of

UID = "uid-1"
POD = Pod("bank", UID, 4, "bank-ingress-x", "shop", None, Path("/peers"), 30.0, 30.0, False)
VOLUMES = {"host-0": "vol-0", "host-1": "vol-1"}


def item(owners: list[str | None], epoch: int = 1, **changes: Any) -> dict[str, Any]:
    return {"metadata": {"name": "bank"}, "spec": {**placement(UID, owners, VOLUMES, epoch), **changes}}


BOTH: list[str | None] = ["host-0", "host-0", "host-1", "host-1"]


def test_the_spec_is_the_table() -> None:
    table = table_of(item(BOTH, 3), POD, None)
    assert [table.owner(shard) for shard in range(4)] == [("host-0", 3)] * 2 + [("host-1", 3)] * 2


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format": 2}, "the table has format 2; this kubeactor reads format 1"),
        ({"format": 9, "hosts": 7}, "the table has format 9"),
        ({"namespace": "uid-2"}, "it is the table of namespace uid uid-2, and this one is uid-1"),
        ({"shards": 8}, "it has 8 shards, and the namespace 4; that never changes"),
        ({"hosts": 7}, "not a placement table"),
        ({"epochs": "0-9:1"}, "is not ascending within"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_in_a_clear_line(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(PlacementError) as caught:
        table_of(item(BOTH, **changes), POD, None)
    assert says in str(caught.value)


@pytest.mark.parametrize("spec", [None, 7, []])
def test_an_object_without_a_spec_is_refused(spec: Any) -> None:
    with pytest.raises(PlacementError, match="no spec"):
        table_of({"spec": spec}, POD, None)


def test_a_table_never_goes_back_behind_an_epoch_that_is_known() -> None:
    known = table_of(item(BOTH, 3), POD, None)
    with pytest.raises(PlacementError, match="shard 0 has epoch 2 in it, and 3 here"):
        table_of(item(BOTH, 2), POD, known)
    with pytest.raises(PlacementError, match="shard 0 has epoch 0 in it, and 3 here"):
        table_of(item([None] * 4), POD, known)
    assert table_of(item(BOTH, 3), POD, known) == known
    assert table_of(item(BOTH, 4), POD, known).epoch(0) == 4


def test_a_shard_does_not_change_its_owner_under_one_epoch() -> None:
    known = table_of(item(BOTH, 3), POD, None)
    with pytest.raises(PlacementError, match="went from host-0 to host-1 under the same epoch 3"):
        table_of(item(["host-1", *BOTH[1:]], 3), POD, known)


# Addresses


def test_pods_are_found_by_their_slices_whether_ready_or_not() -> None:
    slices = [
        slice_of("bank-host", {"bank-host-0": ("10.0.0.1", 7000), "bank-host-1": ("10.0.0.2", 7000)}),
        slice_of("bank-host", {"bank-host-2": ("fd00::1", 7001), "bank-ingress-0": ("10.0.0.9", 7001)}),
    ]
    assert addresses_of(slices, POD) == {
        "host-0": "10.0.0.1:7000",
        "host-1": "10.0.0.2:7000",
        "host-2": "[fd00::1]:7001",
    }


def test_of_two_pods_of_one_name_the_one_that_does_not_end_counts() -> None:
    old = slice_of("bank-host", {"bank-host-0": ("10.0.0.1", 7000)}, terminating=True, ready=True)
    new = slice_of("bank-host", {"bank-host-0": ("10.0.0.2", 7000)})
    for slices in ([old, new], [new, old]):
        assert addresses_of(slices, POD) == {"host-0": "10.0.0.2:7000"}


def test_slices_with_little_in_them_are_no_error() -> None:
    assert addresses_of([{}, {"endpoints": None, "ports": None}, {"endpoints": [{"addresses": []}]}], POD) == {}
    bare = {"endpoints": [{"addresses": ["10.0.0.1"], "hostname": "bank-host-0"}]}
    assert addresses_of([bare], POD) == {"host-0": "10.0.0.1:7000"}


# The two together


def test_a_host_without_an_address_is_looked_up_by_its_pods_name() -> None:
    view = View(POD)
    assert (view.placement(), view.trouble) == (None, "there is no ActorPlacement bank yet")
    view.placed([item(BOTH)])
    view.located([slice_of("bank-host", {"bank-host-0": ("10.0.0.1", 7000)})])
    found = view.placement()
    assert found is not None
    assert found.addresses == {"host-0": "10.0.0.1:7000", "host-1": "bank-host-1.bank-host.shop.svc:7000"}


def test_a_host_that_the_slices_leave_out_stays_where_it_was_until_they_have_it_again() -> None:
    view = View(POD)
    view.placed([item(BOTH)])
    view.located([slice_of("bank-host", {"bank-host-0": ("10.0.0.1", 7000), "bank-host-1": ("10.0.0.2", 7000)})])
    before = view.placement()
    view.located([])  # somebody deleted the Service
    assert view.placement() == before
    view.located([slice_of("bank-host", {"bank-host-1": ("10.0.0.3", 7000)})])
    found = view.placement()
    assert found is not None
    assert found.addresses == {"host-0": "10.0.0.1:7000", "host-1": "10.0.0.3:7000"}


def test_what_is_refused_or_deleted_leaves_the_last_good_table_in_use() -> None:
    view = View(POD)
    view.placed([item(BOTH, 3)])
    for items, trouble in (
        ([item(BOTH, 2)], "ActorPlacement bank is not used: it is older"),
        ([], "its ActorPlacement is gone"),
        ([{"metadata": {"name": "other"}}], "its ActorPlacement is gone"),
    ):
        view.placed(items)
        assert view.trouble.startswith(trouble)
        assert view.table is not None
        assert view.table.epoch(0) == 3
    view.placed([item(BOTH, 4)])
    assert view.trouble == ""


def test_the_kept_placement_counts_until_there_is_another() -> None:
    table = Table.of(table_of(item(BOTH, 3), POD, None).document())
    view = View(POD, Placement(table, {"host-0": "10.0.0.1:7000", "host-1": "10.0.0.2:7000"}))
    assert view.placement() == Placement(table, {"host-0": "10.0.0.1:7000", "host-1": "10.0.0.2:7000"})
    view.placed([item(BOTH, 2)])
    assert view.table == table
