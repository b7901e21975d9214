"""What a host tells the operator while its disk is away, behind or broken."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.harness.engine import Machine, on_engine

from kubeactor import Actor
from kubeactor.engine.store import DiskFullError, StoreBusyError, StoreError
from kubeactor.engine.volume import ForeignVolumeError, VolumeMismatchError
from kubeactor.errors import ActorOverloadedError
from kubeactor.ingress.internal import Unopened
from kubeactor.pod.report import HostReport, reason_of
from kubeactor.quarantine import Quarantine


class Thing(Actor):
    async def get(self) -> int:
        return 1


def report(engine: Any, closed: StoreError | None = None, folder: Path = Path("/")) -> HostReport:
    standby = SimpleNamespace(reason=str(closed or "starting"))
    behind: Any = SimpleNamespace(engine=engine, closed=closed, standby=standby, trouble=lambda: None, router=None)
    peers: Any = SimpleNamespace(fingerprints=["0123456789abcdef"])
    return HostReport(behind, peers, Quarantine(None), folder)


@pytest.mark.parametrize(
    ("closed", "reason"),
    [
        (None, "Starting"),
        (StoreBusyError("busy"), "VolumeInUse"),
        (ForeignVolumeError("of uid-2"), "VolumeOfAnotherNamespace"),
        (VolumeMismatchError("of host-1"), "VolumeOfAnotherHost"),
        (DiskFullError("No space left on device"), "VolumeFull"),
        (StoreError("EIO"), "VolumeUnreadable"),
    ],
)
def test_why_a_volume_is_not_open_is_one_word_and_a_sentence(closed: StoreError | None, reason: str) -> None:
    assert reason_of(closed) == reason
    for ask in (lambda: report(None, closed).inventory(), lambda: report(None, closed).grant("v", [(0, 1)])):
        with pytest.raises(Unopened, match=str(closed or "starting")) as caught:
            ask()
        assert (caught.value.reason, caught.value.error.status) == (reason, 503)
        assert (caught.value.disk is not None) is (reason == "VolumeFull")


@on_engine(Thing, owned=lambda shard: shard == 0)
async def test_a_grant_that_meets_a_write_stall_can_be_made_again(machine: Machine) -> None:
    machine.store.stalls = 1
    with pytest.raises(ActorOverloadedError):
        report(machine.engine).grant(machine.engine.volume_id, [(1, 1)])
    assert machine.failures == []
    assert 1 not in machine.engine.epochs
    report(machine.engine).grant(machine.engine.volume_id, [(1, 1)])
    assert machine.engine.epochs == {0: 1, 1: 1}


@on_engine(Thing, owned=lambda shard: shard == 0)
async def test_a_grant_that_cannot_be_written_ends_the_worker(machine: Machine) -> None:
    machine.store.fail_write = "a write failed: EIO"
    with pytest.raises(Unopened):
        report(machine.engine).grant(machine.engine.volume_id, [(1, 1)])
    assert machine.failures == ["a write failed: EIO"]
    with pytest.raises(Unopened, match="EIO"):
        report(machine.engine).inventory()
    machine.store.fail_write = ""


@on_engine(Thing, owned=lambda shard: shard == 0)
async def test_a_grant_for_another_volume_begins_nothing(machine: Machine) -> None:
    with pytest.raises(ValueError, match="for volume lost, and this is volume"):
        report(machine.engine).grant("lost", [(1, 1)])
    assert machine.engine.inventory() == [(0, 1, "owned")]


@on_engine(Thing, owned=lambda shard: shard == 0)
async def test_an_inventory_has_what_lies_on_the_volume(machine: Machine) -> None:
    found = report(machine.engine).inventory()
    assert found["states"] == [(0, 1, "owned")]
    assert (found["volume"], found["credentials"]) == (machine.engine.volume_id, ["0123456789abcdef"])
    assert set(found["disk"]) == {"used_bytes", "free_bytes", "full"}
    assert found["table"] is None  # before there is a router
