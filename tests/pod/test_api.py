"""List and watch against an API server with bad days."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.harness.dev import until
from tests.harness.fake_api import NAMESPACE, PLACEMENTS, FakeApi, fake_api

from kubeactor.connection import notice_dead_peers
from kubeactor.pod import api as api_module
from kubeactor.pod.api import ApiProblem, Reflector, Selection, api_client, request

PATH = f"/apis/kubeactor.io/v1alpha1/namespaces/{NAMESPACE}/{PLACEMENTS}"
BANK = Selection(PATH, {"fieldSelector": "metadata.name=bank"})


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApi]:
    monkeypatch.setattr(api_module, "FIRST_S", 0.01)
    monkeypatch.setattr(api_module, "BRIEF_S", 0.0)
    with fake_api() as api:
        monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path / "kubeconfig")))
        api.put(PLACEMENTS, "bank", spec=1)
        api.put(PLACEMENTS, "other", spec=1)
        yield api


class Followed:
    """What a reflector told last."""

    def __init__(self) -> None:
        self.specs: list[Any] | None = None
        self.reflector = Reflector(BANK, self._changed)

    def _changed(self, items: list[dict[str, Any]]) -> None:
        self.specs = [item["spec"] for item in items]

    async def tells(self, *specs: Any) -> None:
        await until(lambda: self.specs == list(specs), what=f"{specs}; {self.specs}, {self.reflector.trouble}")


def following(test: Callable[[Followed], Awaitable[None]]) -> None:
    async def main() -> None:
        followed = Followed()
        async with api_client() as api:
            task = asyncio.create_task(followed.reflector.run(api))
            try:
                await test(followed)
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())


def watching(server: FakeApi, count: int) -> Callable[[], bool]:
    return lambda: server.count(PLACEMENTS, watches=True) >= count


def test_objects_are_listed_once_and_then_watched_by_name(server: FakeApi) -> None:
    async def test(followed: Followed) -> None:
        await followed.tells(1)
        await until(watching(server, 1))
        server.put(PLACEMENTS, "bank", spec=2)
        await followed.tells(2)
        server.put(PLACEMENTS, "other", spec=2)
        server.delete(PLACEMENTS, "bank")
        await followed.tells()
        server.put(PLACEMENTS, "bank", spec=3)
        await followed.tells(3)

    following(test)
    (_, first), (_, second) = server.asked
    assert first == {"fieldSelector": "metadata.name=bank"}
    assert second["fieldSelector"] == "metadata.name=bank"
    assert (second["watch"], second["allowWatchBookmarks"], second["resourceVersion"]) == ("true", "true", "102")
    assert 200 < int(second["timeoutSeconds"]) <= 300


def test_a_watch_that_ended_goes_on_where_it_was(server: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(followed: Followed) -> None:
        await until(watching(server, 1))
        server.bookmark(500)
        server.put(PLACEMENTS, "bank", spec=2)
        await followed.tells(2)
        server.end_watches()
        await until(watching(server, 2))
        server.put(PLACEMENTS, "bank", spec=3)
        await followed.tells(3)
        assert followed.reflector.lists == 1
        assert followed.reflector.trouble == ""

    following(test)
    assert server.asked[-1][1]["resourceVersion"] == "501"


def test_a_version_that_is_too_old_is_followed_by_a_new_list(server: FakeApi) -> None:
    async def test(followed: Followed) -> None:
        await until(watching(server, 1))
        server.compact()  # the next watch is answered with 410
        await until(lambda: followed.reflector.lists == 2)
        server.put(PLACEMENTS, "bank", spec=2)
        await followed.tells(2)
        assert followed.reflector.trouble == ""

    following(test)


def test_a_server_that_goes_away_and_comes_back_is_followed_again(server: FakeApi) -> None:
    async def test(followed: Followed) -> None:
        await followed.tells(1)
        await asyncio.to_thread(server.stop)
        await until(lambda: "can't be asked" in followed.reflector.trouble, what="trouble")
        assert followed.specs == [1]
        server.start()
        server.put(PLACEMENTS, "bank", spec=2)
        await followed.tells(2)
        await until(lambda: followed.reflector.trouble == "", what="no trouble")

    following(test)


def test_a_refusal_is_told_in_the_servers_words_and_asked_again(server: FakeApi) -> None:
    server.refuse = 403

    async def test(followed: Followed) -> None:
        await until(lambda: followed.reflector.trouble == "the API server refuses: not now", what="the refusal")
        server.refuse = 0
        await followed.tells(1)

    following(test)


def test_a_connection_without_a_sign_of_life_is_given_up(server: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "SILENT_S", 0.2)
    server.silent = True

    async def test(followed: Followed) -> None:
        await until(lambda: "can't be asked" in followed.reflector.trouble, what="trouble")
        server.silent = False
        await followed.tells(1)
        asked = server.count(PLACEMENTS, watches=True)
        await until(watching(server, asked + 2))  # a watch without a bookmark for so long ends too
        server.put(PLACEMENTS, "bank", spec=2)
        await followed.tells(2)

    following(test)


def test_watches_that_end_at_once_are_not_asked_for_in_a_loop(server: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "BRIEF_S", 1.0)
    server.brief = True

    async def test(followed: Followed) -> None:
        await until(lambda: followed.reflector.trouble == "the API server ends each watch at once", what="trouble")
        await until(watching(server, 4))
        assert followed.reflector.lists >= server.count(PLACEMENTS, watches=True) - 1
        server.brief = False
        await until(lambda: followed.reflector.trouble == "")

    following(test)


def test_all_is_listed_anew_now_and_then(server: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "RELIST_S", 0.1)

    async def test(followed: Followed) -> None:
        await until(watching(server, 1))
        began = asyncio.get_running_loop().time()
        await until(lambda: asyncio.get_running_loop().time() - began > 0.12)
        server.end_watches()
        await until(lambda: followed.reflector.lists == 2)

    following(test)


@pytest.mark.parametrize(
    "event",
    [
        {"type": "ADDED"},
        {"type": "ADDED", "object": 7},
        {"type": "ADDED", "object": {"metadata": {"resourceVersion": "1"}}},
        {"type": "ERROR", "object": {"message": "internal", "code": 500}},
        {},
    ],
)
def test_what_cannot_be_understood_is_a_problem_and_no_crash(event: dict[str, Any]) -> None:
    with pytest.raises(ApiProblem):
        Followed().reflector._take(event)


def test_a_missing_kubeconfig_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nothing"))

    async def main() -> None:
        async with api_client():
            raise AssertionError("there is no server")

    with pytest.raises(ApiProblem, match="neither a service account nor a kubeconfig can be used"):
        asyncio.run(main())


def test_an_answer_above_the_bound_is_a_problem(server: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "ANSWER_BYTES", 1000)
    server.put(PLACEMENTS, "bank", spec="x" * 2000)

    async def main() -> None:
        async with api_client() as api:
            await request(api, "GET", PATH, {})

    with pytest.raises(ApiProblem, match="more than 1000 bytes"):
        asyncio.run(main())


def test_a_server_that_vanished_is_noticed_by_keep_alives(server: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[socket.socket] = []

    def keeping(sock: socket.socket) -> None:
        notice_dead_peers(sock)
        made.append(sock)

    monkeypatch.setattr(api_module, "notice_dead_peers", keeping)

    async def test(followed: Followed) -> None:
        await followed.tells(1)
        assert made[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 3000
        assert made[0].getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1

    following(test)
