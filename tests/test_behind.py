"""What `/readyz` says of the parts of a process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.harness.wiring import NAMESPACE, SHARDS, table

from kubeactor import behind as behind_module
from kubeactor.behind import Behind
from kubeactor.namespace import Namespace
from kubeactor.pod.identity import Pod
from kubeactor.router import Router
from kubeactor.site import Site

MIB = 1024 * 1024


def behind(tmp_path: Path, look: Callable[[Behind], None], *, pod: bool = False, **context: Any) -> None:
    async def main() -> None:
        namespace = Namespace(tmp_path, SHARDS, NAMESPACE)
        who = Pod("bank", NAMESPACE, SHARDS, "bank-host-0", "shop", "host-0", tmp_path, 30.0, 30.0, False)
        worker: Any = SimpleNamespace(restarts=0, last_death=None, **context)
        found = Behind(worker, Site(namespace, who if pod else None))
        look(found)
        await found.close(0.0)

    asyncio.run(main())


def engine(**fields: Any) -> Any:
    async def close(grace_s: float) -> None:
        pass

    store = SimpleNamespace(free_bytes=lambda: (100 * MIB, 1000 * MIB))
    return SimpleNamespace(**{"ready": lambda: None, "disk_full": False, "store": store, "close": close, **fields})


def test_a_nearly_full_disk_is_a_note_and_no_reason_not_to_be_ready(tmp_path: Path) -> None:
    def look(found: Behind) -> None:
        found.stand(engine(disk_full=True), None)
        assert found.trouble() is None
        assert found.notes() == (
            "the disk is nearly full (100 MiB of 1000 MiB are free): turns that grow the data are refused;"
            " delete data or grow the volume\n"
        )

    behind(tmp_path, look)


def test_the_worker_before_this_one_is_a_note(tmp_path: Path) -> None:
    def look(found: Behind) -> None:
        found._context.restarts, found._context.last_death = 3, "hung in A/b.c"
        found.stand(engine(), None)
        assert found.notes() == "worker restarted 3 times, last: hung in A/b.c\n"

    behind(tmp_path, look)


def test_a_table_that_contradicts_the_volume_is_the_trouble_of_a_host(tmp_path: Path) -> None:
    def look(found: Behind) -> None:
        found.stand(engine(), None)
        found.claims = SimpleNamespace(trouble="VolumeLost: ...")  # type: ignore[assignment]
        assert found.trouble() == "VolumeLost: ..."
        found.engine = engine(ready=lambda: "going down")
        assert found.trouble() == "going down"

    behind(tmp_path, look, pod=True)


def test_an_ingress_in_a_pod_is_ready_with_its_first_table(tmp_path: Path) -> None:
    def look(found: Behind) -> None:
        assert found.trouble() == "starting"
        found.stand(None, Router(*found._site.empty()))
        found._follower = SimpleNamespace(trouble="there is no ActorPlacement bank yet")  # type: ignore[assignment]
        assert found.trouble() == "there is no ActorPlacement bank yet"
        assert found.router is not None
        found.router.update(table(), {})
        assert found.trouble() is None
        assert found.notes() == "there is no ActorPlacement bank yet\n"
        found.leaving = True
        assert found.trouble() == "going down"

    behind(tmp_path, look, pod=True)


def test_a_worker_whose_follower_ends_is_replaced(tmp_path: Path) -> None:
    reasons: list[str] = []

    async def main() -> None:
        worker: Any = SimpleNamespace(fail=reasons.append)
        found = Behind(worker, Site(Namespace(tmp_path, SHARDS, NAMESPACE)))

        async def broken() -> None:
            raise ZeroDivisionError("of the follower")

        found._keep(broken())
        await asyncio.gather(*found._tasks, return_exceptions=True)
        await asyncio.sleep(0)
        await found.close(0.0)

    asyncio.run(main())
    assert reasons == ["what follows changes ended: ZeroDivisionError('of the follower')"]


def test_the_newest_placement_is_waited_for_but_not_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        found = Behind(SimpleNamespace(), Site(Namespace(tmp_path, SHARDS, NAMESPACE)))  # type: ignore[arg-type]
        seen = asyncio.Event()
        found._follower = SimpleNamespace(seen=seen.wait)  # type: ignore[assignment]
        waiting = asyncio.create_task(found.placed())
        await asyncio.sleep(0)
        assert not waiting.done()
        seen.set()
        await waiting
        seen.clear()
        monkeypatch.setattr(behind_module, "SEEN_S", 0.01)
        await found.placed()
        await found.close(0.0)

    asyncio.run(main())
