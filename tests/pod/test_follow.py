"""A process kept at the newest placement, and the file that it starts from."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.harness.dev import until
from tests.harness.fake_api import NAMESPACE, PLACEMENTS, SLICES, FakeApi, fake_api, placement, slice_of

from kubeactor.placement import Table
from kubeactor.placement_file import Placement, load, save
from kubeactor.pod import follow as follow_module
from kubeactor.pod.follow import PodFollower, kept
from kubeactor.pod.identity import Pod

UID = "uid-1"
POD = Pod("bank", UID, 2, "bank-ingress-x", NAMESPACE, None, Path("/peers"), 30.0, 30.0, False)
VOLUMES = {"host-0": "vol-0"}
OWNERS: list[str | None] = ["host-0", "host-0"]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApi]:
    monkeypatch.setattr(follow_module, "RETRY_S", 0.01)
    with fake_api() as api:
        monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path / "kubeconfig")))
        yield api


def publish(server: FakeApi, epoch: int = 1, port: int = 7000) -> None:
    server.put(SLICES, "s", **slice_of("bank-host", {"bank-host-0": ("10.0.0.1", port)}))
    server.put(PLACEMENTS, "bank", spec=placement(UID, OWNERS, VOLUMES, epoch))


def table(uid: str = UID, epoch: int = 1) -> Table:
    return Table(uid, volumes=VOLUMES, owners=OWNERS, epochs=[epoch, epoch])


def test_each_placement_is_told_once_and_kept_in_the_file(server: FakeApi, tmp_path: Path) -> None:
    told: list[Placement] = []
    path = tmp_path / "placement.json"

    async def main() -> None:
        follower = PodFollower(POD, path, None, told.append)
        task = asyncio.create_task(follower.run())
        await until(lambda: follower.trouble == "there is no ActorPlacement bank yet", what=follower.trouble)
        publish(server)
        await until(lambda: follower.current == (table(), {"host-0": "10.0.0.1:7000"}), what="a placement")
        publish(server)
        publish(server, port=7001)
        await until(lambda: follower.current == (table(), {"host-0": "10.0.0.1:7001"}), what="another address")
        await until(lambda: path.exists() and load(path) == follower.current, what="the file")
        assert follower.trouble == ""
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())
    assert [placement for n, placement in enumerate(told) if placement in told[:n]] == []


def test_the_placement_is_seen_when_the_first_list_is_gone_by_whatever_it_says(server: FakeApi, tmp_path: Path) -> None:
    told: list[Placement] = []

    async def main(last: Placement | None, wanted: Table | None) -> None:
        told.clear()
        follower = PodFollower(POD, tmp_path / "placement.json", last, told.append)
        seen = asyncio.create_task(follower.seen())
        server.refuse, before = 503, server.count(PLACEMENTS, watches=False)
        task = asyncio.create_task(follower.run())
        await until(lambda: server.count(PLACEMENTS, watches=False) > before + 1, what="two refusals")
        assert not seen.done()
        server.refuse = 0
        await seen
        known = [last, *told][-1]
        assert (known.table if known else None) == wanted
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main(None, None))
    server.put(PLACEMENTS, "bank", spec=placement(UID, OWNERS, VOLUMES, epoch=2))
    asyncio.run(main(Placement(table(epoch=1), {}), table(epoch=2)))
    asyncio.run(main(Placement(table(epoch=3), {}), table(epoch=3)))


def test_a_file_that_cannot_be_written_stops_nothing(
    server: FakeApi, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        follower = PodFollower(POD, tmp_path / "nowhere" / "placement.json", None, lambda found: None)
        task = asyncio.create_task(follower.run())
        publish(server)
        await until(lambda: "can't be kept in" in caplog.text, what="the complaint")
        publish(server, epoch=2)
        await until(lambda: follower.current is not None and follower.current.table == table(epoch=2))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())


def test_without_a_login_it_is_tried_again(server: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "kubeconfig"
    text = config.read_text()
    config.unlink()

    async def main() -> None:
        follower = PodFollower(POD, tmp_path / "placement.json", Placement(table(), {}), lambda found: None)
        task = asyncio.create_task(follower.run())
        await until(lambda: "neither a service account nor a kubeconfig" in follower.trouble, what="trouble")
        config.write_text(text)
        publish(server, epoch=2)
        await until(lambda: follower.current is not None and follower.current.table == table(epoch=2))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())


def test_the_kept_placement_of_this_namespace_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "placement.json"
    assert kept(path, POD) is None
    save(path, table(epoch=3), {"host-0": "10.0.0.1:7000"})
    assert kept(path, POD) == (table(epoch=3), {"host-0": "10.0.0.1:7000"})


@pytest.mark.parametrize("other", ["damaged", "another uid", "another number of shards"])
def test_any_other_file_is_told_of_and_left_alone(tmp_path: Path, other: str, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "placement.json"
    if other == "damaged":
        path.write_text("{")
    elif other == "another uid":
        save(path, table(uid="uid-2"), {})
    else:
        save(path, Table.empty(UID, 3), {})
    assert kept(path, POD) is None
    assert str(path) in caplog.text
