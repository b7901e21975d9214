"""`testing.run`: what a test can do with actors, and what fails it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from tests.testing import ward
from tests.testing.ward import COINS, Empty, Purse, Ward

from kubeactor import ActorArgumentError, ActorFencedError, ActorMethodError, testing
from kubeactor.application import UserCodeError
from kubeactor.testing import Actors, BackgroundError

pytestmark = pytest.mark.asyncio


@pytest.fixture(autouse=True)
def _fresh() -> None:
    ward.ran.clear()


# --- calls


async def test_each_run_begins_empty_and_serves_stubs_front_door_and_api() -> None:
    for _ in range(2):
        async with testing.run(Ward, front_door=ward.app) as actors:
            alice = actors.env.PURSE.id_from_name("alice")
            assert await alice.put(3) == 3
            assert (await actors.http.post("/alice", content="4")).json() == {"coins": 7, "opened": "yes"}
            answer = await actors.http.post("/v1/actors/PURSE/alice/take", json={"amount": 7})
            assert (answer.status_code, answer.json(), answer.headers["kubeactor-epoch"]) == (200, 0, "1")
            assert (await actors.http.get("/readyz")).text == "ready\n"
    assert [line for line in ward.ran if "door" in line] == ["door opens", "door closes"] * 2


async def test_a_front_door_can_be_a_function() -> None:
    async with testing.run(Ward, front_door=ward.fetch) as actors:
        assert (await actors.http.get("/")).text == "5"


async def test_what_a_method_raises_is_the_cause_of_its_error_and_in_the_answers_detail() -> None:
    async with testing.run(Ward, front_door=ward.app) as actors:
        with pytest.raises(ActorMethodError, match="it fails") as caught:
            await actors.env.PURSE.id_from_name("a").fail()
        assert isinstance(caught.value.__cause__, ValueError)
        with pytest.raises(Empty, match="not that many"):
            await actors.env.PURSE.id_from_name("a").take(1)
        for path, line in (("/broken", "the door is broken"), ("/v1/actors/PURSE/a/fail", "it fails")):
            answer = await actors.http.request("POST" if "v1" in path else "GET", path)
            first, *trace = answer.json()["detail"].splitlines()
            assert (answer.status_code, first.endswith(line)) == (500, True)
            assert any(f'raise ValueError("{line}")' in each for each in trace)
        assert actors.errors == []  # whoever called heard of it


# --- what a test replaces


async def test_bindings_configuration_and_clients_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fake(Purse):
        async def put(self, amount: int) -> int:
            return 999

    monkeypatch.setenv("FEE", "7")
    async with testing.run(Ward) as actors:
        alice = actors.env.PURSE.id_from_name("alice")
        assert [await alice.fee(), await alice.rate()] == [7, "real"]
    closed = Ward.closed
    async with testing.run(Ward, PURSE=Fake, FEE=2, rates="fake") as actors:
        alice = actors.env.PURSE.id_from_name("alice")
        assert isinstance(actors.env, Ward)
        assert [await alice.put(1), await alice.fee(), await alice.rate()] == [999, 2, "fake"]
    assert Ward.closed == closed + 1


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"FEES": 2}, "Ward declares no FEES; did you mean FEE?"),
        ({"FEE": "two"}, "Ward.FEE is not of its type"),
        ({"PURSE": int}, "int is no Actor: give a class for PURSE"),
        ({"PURSE": Purse()}, "is no Actor: give a class for PURSE"),
        ({"front_door": 3}, "front_door is an ASGI app or an async def fetch"),
    ],
)
async def test_what_does_not_fit_is_told_in_one_sentence(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserCodeError, match=sentence):
        testing.run(Ward, **values)


async def test_an_env_that_is_none_and_one_without_its_configuration_are_told() -> None:
    class Strict(Ward):
        KEY: str

    with pytest.raises(UserCodeError, match="takes an Env class"):
        testing.run(Purse)  # type: ignore[type-var]
    with pytest.raises(UserCodeError, match=r"KEY is not set; set it, or give a value: testing\.run"):
        testing.run(Strict)
    async with testing.run(Strict, KEY="given") as actors:
        assert actors.env.KEY == "given"


# --- time


async def test_advance_runs_each_alarm_at_its_time_and_those_that_it_sets() -> None:
    async with testing.run(Ward) as actors:
        alice = actors.env.PURSE.id_from_name("alice")
        await alice.grow(timedelta(minutes=5))
        began = actors.now()
        await actors.advance(minutes=4, seconds=59)
        assert await alice.coins() == 0
        await actors.advance(timedelta(seconds=1))
        assert await alice.coins() == 1
        await actors.advance(hours=1)
        assert await alice.coins() == 13
        times = [f"alarm {began + timedelta(minutes=5 * n):%H:%M:%S}" for n in range(1, 14)]
        assert [line for line in ward.ran if line.startswith("alarm")] == times
        assert actors.now() == began + timedelta(hours=1, minutes=5)


async def test_calls_go_on_after_years_and_idle_instances_are_gone() -> None:
    async with testing.run(Ward, front_door=ward.app) as actors:
        alice = actors.env.PURSE.id_from_name("alice")
        assert [await alice.look(), await alice.look()] == [1, 2]
        await actors.advance(seconds=30)
        assert await alice.look() == 3
        await actors.advance(days=1000)
        assert await alice.look() == 1
        assert (await actors.http.post("/alice", content="4")).status_code == 200
        assert (await actors.http.post("/v1/actors/PURSE/alice/coins")).json() == 4


async def test_an_alarm_that_sets_itself_to_now_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubeactor.testing.machine.EVENTS_MAX", 300)
    async with testing.run(Ward) as actors:
        await actors.env.PURSE.id_from_name("hot").grow(timedelta(0))
        with pytest.raises(BackgroundError, match="does one set itself to now"):
            await actors.advance(seconds=1)


async def test_time_does_not_go_backwards() -> None:
    async with testing.run(Ward) as actors:
        with pytest.raises(ValueError, match="time goes forward"):
            await actors.advance(minutes=-1)


async def test_time_has_a_unit() -> None:
    async with testing.run(Ward) as actors:
        with pytest.raises(TypeError, match=r"write advance\(seconds=60\)"):
            await actors.advance(60)  # type: ignore[arg-type]


# --- messages


async def test_settle_waits_until_messages_have_arrived() -> None:
    async with testing.run(Ward) as actors:
        alice, bob = map(actors.env.PURSE.id_from_name, ["alice", "bob"])
        await alice.put(10)
        for _ in range(5):
            await alice.give("bob", 2)
        await actors.settle()
        assert [await alice.coins(), await bob.coins()] == [0, 10]


async def test_settle_lets_time_go_on_while_a_message_is_tried_again() -> None:
    async with testing.run(Ward) as actors:
        began = actors.now()
        await actors.env.TRAY.id_from_name("t").shout("bob")
        await actors.settle()
        assert ward.ran.count("fail") == 10
        assert actors.now() - began > timedelta(minutes=5)
        assert await actors.env.TRAY.id_from_name("t").coins() == 100  # `undelivered` ran
        assert len(actors.errors) == 10
        actors.errors.clear()


async def test_settle_raises_on_a_parked_message() -> None:
    async with testing.run(Ward) as actors:
        await actors.env.PURSE.id_from_name("alice").throw("bob")
        with pytest.raises(BackgroundError, match=r"PURSE/alice -> PURSE/bob.lose: Empty: it is refused"):
            await actors.settle()
        assert actors.errors == ["message 1 of PURSE/alice is parked"]
        actors.errors.clear()


# --- instances


async def test_evict_makes_the_next_call_activate_anew() -> None:
    async with testing.run(Ward) as actors:
        alice = actors.env.PURSE.id_from_name("alice")
        assert [await alice.look(), await alice.look()] == [1, 2]
        await actors.evict(alice)
        assert await alice.look() == 1


async def test_storage_reads_and_writes_without_a_call() -> None:
    async with testing.run(Ward) as actors:
        alice = actors.env.PURSE.id_from_name("alice")
        storage = actors.storage(alice)
        await storage.put(COINS, 5)
        await storage.put({"a": 1, "b": 2})
        assert ward.ran == []  # it was not brought to life
        assert [await alice.look(), await alice.look(), await alice.coins()] == [1, 2, 5]
        assert await storage.get(COINS) == 5
        assert await alice.look() == 3  # reading changes nothing
        assert await storage.list() == {"a": 1, "b": 2, "coins": 5}
        assert await storage.get(["a", "x"]) == {"a": 1}
        assert await storage.get("x", 7) == 7
        assert [await storage.delete("a"), await storage.delete(["a", "b"])] == [True, 1]
        assert await alice.look() == 1  # its fields may tell of what was there before
        await storage.set_alarm(timedelta(minutes=1))
        assert await storage.get_alarm() == actors.now() + timedelta(minutes=1)
        await storage.delete_alarm()
        assert await storage.get_alarm() is None
        await storage.delete_all()
        assert await alice.coins() == 0
        with pytest.raises(ActorArgumentError, match="timedelta"):
            await actors.storage(alice).set_alarm(60)  # type: ignore[arg-type]


# --- what fails a test


async def during(test: Callable[[Actors[Ward]], Awaitable[None]]) -> None:
    async with testing.run(Ward) as actors:
        await test(actors)


async def test_a_failed_alarm_fails_the_test() -> None:
    async def test(actors: Actors[Ward]) -> None:
        await actors.env.PURSE.id_from_name("broken").grow(timedelta(minutes=1))
        await actors.advance(minutes=1)

    told = r"the alarm of PURSE/broken failed at attempt 1 of 10: ActorMethodError: .*it rings no more"
    with pytest.raises(BackgroundError, match=told) as caught:
        await during(test)
    assert isinstance(caught.value.__cause__, ValueError)


async def test_an_alarm_is_tried_again_as_time_passes_and_then_parked() -> None:
    async with testing.run(Ward) as actors:
        await actors.env.PURSE.id_from_name("broken").grow(timedelta(minutes=1))
        await actors.advance(hours=2)
        assert len([line for line in ward.ran if line.startswith("alarm")]) == 10
        assert len(actors.errors) == 20  # each run and each failure
        assert actors.errors[-1].startswith("the alarm of PURSE/broken failed at attempt 10 of 10, and is parked: ")
        actors.errors.clear()


async def test_an_exception_that_nobody_retrieved_fails_the_test() -> None:
    async def fail() -> None:
        raise ValueError("nobody hears")

    async def test(actors: Actors[Ward]) -> None:
        task = asyncio.create_task(fail())
        await asyncio.sleep(0)
        del task

    with pytest.raises(BackgroundError, match=r"never retrieved \(ValueError: nobody hears\)"):
        await during(test)


async def test_an_error_that_the_engine_logs_fails_the_test() -> None:
    async def test(actors: Actors[Ward]) -> None:
        logging.getLogger("kubeactor.engine").error("it is wrong")

    with pytest.raises(BackgroundError, match="it is wrong"):
        await during(test)


async def test_a_test_that_fails_by_itself_keeps_its_error_and_gets_a_note() -> None:
    async def test(actors: Actors[Ward]) -> None:
        logging.getLogger("kubeactor.engine").error("it is wrong")
        raise KeyError("its own")

    with pytest.raises(KeyError) as caught:
        await during(test)
    assert "it is wrong" in caught.value.__notes__[0]


async def test_a_call_that_a_test_left_behind_ends_with_it() -> None:
    async with testing.run(Ward) as actors:
        left = asyncio.create_task(actors.env.PURSE.id_from_name("a").slow(20))
        await asyncio.sleep(0)
    with pytest.raises(ActorFencedError, match=r"the test ended before PURSE\.slow was answered"):
        await left


# --- wrong uses


async def test_actors_serve_in_their_block_only_and_once() -> None:
    actors: Actors[Ward] = testing.run(Ward)
    with pytest.raises(RuntimeError, match="actors serve inside of the test"):
        await actors.settle()
    async with actors:
        with pytest.raises(RuntimeError, match="are serving already"):
            await actors.__aenter__()
    with pytest.raises(RuntimeError, match="actors serve inside of the test"):
        actors.http.build_request("GET", "/")


async def test_without_an_asyncio_loop_one_sentence_says_so() -> None:
    def by_hand() -> None:
        coroutine = testing.run(Ward).__aenter__()
        try:
            coroutine.send(None)
        finally:
            coroutine.close()

    with pytest.raises(RuntimeError, match="actors run on asyncio"):
        await asyncio.to_thread(by_hand)


async def test_an_app_without_a_lifespan_is_served_and_any_asgi_app_will_do() -> None:
    async def bare(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http", "it knows requests only"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"bare"})

    async with testing.run(Ward, front_door=bare) as actors:
        assert (await actors.http.get("/")).text == "bare"


async def test_a_lifespan_that_fails_is_told_and_nothing_is_left_open() -> None:
    class Sad(Ward):
        def lifespan(self) -> Any:
            raise ValueError("no database")

    with pytest.raises(ValueError, match="no database"):
        async with testing.run(Sad):
            raise AssertionError("it began")

    async def bad(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no template"})

    with pytest.raises(RuntimeError, match="the front door's lifespan failed: no template"):
        async with testing.run(Ward, front_door=bad):
            raise AssertionError("it began")
