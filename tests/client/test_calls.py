"""Both clients against a real server: types, results, errors, names, bounds, the end."""

from __future__ import annotations

import asyncio
import functools
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from tests.client.app.till_api import Colour, Line, Receipt, Shop, TillApi, TillIsShort
from tests.harness.dev import until

import kubeactor
from kubeactor import id_of
from kubeactor.client import aio, connect, connect_sync, idempotency_key
from kubeactor.client.bindings import ClientStub

Call = Callable[..., Any]


def _async_call(url: str, pick: Callable[[Shop], Call], *args: Any, **kwargs: Any) -> Any:
    async def main() -> Any:
        async with connect(Shop, url) as shop:
            return await pick(shop)(*args, **kwargs)

    return asyncio.run(main())


def _sync_call(url: str, pick: Callable[[Shop], Call], *args: Any, **kwargs: Any) -> Any:
    with connect_sync(Shop, url) as shop:
        return shop.call(pick(shop.env), *args, **kwargs)


@pytest.fixture(params=[_async_call, _sync_call], ids=["async", "sync"])
def call(request: pytest.FixtureRequest, url: str) -> Callable[..., Any]:
    """call("add", 1, name="a") makes one call of a till."""

    def make(method: str, *args: Any, name: str = "a", **kwargs: Any) -> Any:
        return request.param(url, lambda shop: getattr(shop.TILL.id_from_name(name), method), *args, **kwargs)

    return make


def test_arguments_go_by_position_and_by_name_and_defaults_are_the_actors(call: Call, request: Any) -> None:
    name = request.node.name
    assert [call("add", 5, name=name), call("add", n=2, name=name), call("add", name=name)] == [5, 7, 8]
    assert call("sum", 1, 2, 3) == 6
    assert call("sum", 1, more=2) == 3
    assert call("sum", 1) == 1


def test_what_json_can_not_say_together_is_refused_before_it_is_sent(call: Call) -> None:
    with pytest.raises(kubeactor.CodecError, match=r"TillApi.sum: JSON has no form for `\*args` together with named"):
        call("sum", 1, 2, more=3)
    with pytest.raises(kubeactor.CodecError, match=r"TillApi.sum, first: it is given twice"):
        call("sum", 1, first=3)
    with pytest.raises(kubeactor.CodecError, match=r"TillApi.anything, value: .*inf has no form in JSON"):
        call("anything", float("inf"))


def test_records_and_rich_types_come_back_as_they_went(call: Call) -> None:
    receipt = Receipt(
        number=UUID(int=7),
        at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        lines=[Line("apple", Decimal("0.10")), Line("pear", Decimal(2), Colour.RED)],
        signature=b"\0\xff",
        tags={1, 2},
        notes={1: "one"},
        valid=timedelta(days=30),
    )
    assert call("print", receipt) == receipt


@pytest.mark.parametrize("value", [None, True, 2**63, -(10**30), 0.1, "ü\0\n", [1, [2]], {"a": {"b": None}}, ""])
def test_json_values_come_back_as_they_went(call: Call, value: object) -> None:
    assert call("anything", value) == value


def test_ids_pass_as_arguments_and_results(call: Call) -> None:
    other = kubeactor.ActorId("TILL", b"other")
    assert call("follow", other, deep=True) == other
    assert call("follow", other) is None


def test_a_stub_as_an_argument_is_refused_with_what_to_write(url: str) -> None:
    with connect_sync(Shop, url) as shop:
        till = shop.env.TILL.id_from_name("a")
        with pytest.raises(kubeactor.CodecError, match="id_of"):
            shop.call(till.anything, till)


@pytest.mark.parametrize(
    "name", [".", "..", "...", "a/b", "a//b", "%2F", "ü", "a b", "+", "?x=1", "#", "@:;,", "\x01\x7f", "😀", "x" * 1024]
)
def test_any_name_reaches_its_own_instance(url: str, name: str) -> None:
    with connect_sync(Shop, url) as shop:
        before = shop.call(shop.env.TILL.id_from_name(name).count)
        assert before == 0
        assert shop.call(shop.env.TILL.id_from_name(name).add, 3) == 3
        assert shop.call(shop.env.TILL.get(f"TILL/{name}").count) == 3


def test_a_unique_id_names_its_own_instance(url: str) -> None:
    with connect_sync(Shop, url) as shop:
        one, other = shop.env.TILL.new_unique_id(), shop.env.TILL.new_unique_id()
        assert [shop.call(one.add, 1), shop.call(other.add, 2)] == [1, 2]
        assert shop.call(shop.env.TILL.get(str(id_of(one))).count) == 1
        assert shop.call(shop.env.TILL.get(id_of(other)).count) == 2


def test_a_problem_of_the_users_own_is_the_same_class_with_its_members(call: Call) -> None:
    with pytest.raises(TillIsShort, match=r"5 is more than 1.50") as raised:
        call("take", Decimal(5))
    assert raised.value.left == Decimal("1.50")
    assert raised.value.instance == "TILL/a"
    assert raised.value.request_id


@pytest.mark.parametrize(
    ("method", "args", "error", "text", "started"),
    [
        ("add", ("one",), kubeactor.ActorArgumentError, "n: Expected `int`, got `str`", "no"),
        ("fail", (), kubeactor.ActorMethodError, "KeyError", "yes"),
        ("hidden", (), kubeactor.ActorPrivateMethodError, "internal", "no"),
        ("missing", (), kubeactor.ActorUnknownMethodError, "missing", "no"),
        ("lies", (), kubeactor.CodecError, "TillApi.lies does not fit its return hint: Expected `int`", "yes"),
        ("text", (4 * 1024 * 1024,), kubeactor.BodyTooLargeError, "result", "yes"),
        ("anything", ("x" * 4 * 1024 * 1024,), kubeactor.BodyTooLargeError, "arguments of TillApi.anything", "no"),
    ],
)
def test_errors_are_the_classes_that_they_are_at_the_actor(
    call: Call, method: str, args: tuple[Any, ...], error: type[kubeactor.ActorError], text: str, started: str
) -> None:
    with pytest.raises(error, match=text) as raised:
        call(method, *args)
    assert type(raised.value) is error
    assert raised.value.started == started


def test_the_largest_result_comes_whole(call: Call) -> None:
    size = 4 * 1024 * 1024 - 2  # and its quotes
    assert call("text", size) == "x" * size


def test_a_call_that_takes_longer_than_its_time_says_so(url: str) -> None:
    with (
        connect_sync(Shop, url, timeout_s=0.3) as shop,
        pytest.raises(kubeactor.ActorMethodTimeoutError) as raised,
    ):
        shop.call(shop.env.TILL.id_from_name("slow").wait, 2.0)
    assert raised.value.started in ("yes", "unknown")


def test_the_same_key_gives_the_recorded_result(url: str) -> None:
    async def main() -> None:
        async with connect(Shop, url) as shop:
            till = shop.TILL.id_from_name("keyed")
            results = []
            for _ in range(2):
                with idempotency_key("order-17"):
                    results.append(await till.add(1))
            with idempotency_key("order-17"), pytest.raises(kubeactor.IdempotencyConflictError, match="another call"):
                await till.add(2)
            with idempotency_key("bestellung ü"):
                results.append(await till.add(1))
            with idempotency_key("bestellung ü"):
                results.append(await till.add(1))
            assert results == [1, 1, 2, 2]
            assert await till.count() == 2

    asyncio.run(main())


def test_a_call_without_a_given_key_is_a_new_one_each_time(url: str) -> None:
    with connect_sync(Shop, url) as shop:
        till = shop.env.TILL.id_from_name("unkeyed")
        assert [shop.call(till.add), shop.call(till.add)] == [1, 2]


def test_many_calls_at_once_share_the_connections(url: str) -> None:
    async def main() -> None:
        async with connect(Shop, url) as shop:
            tills = [shop.TILL.id_from_name(f"many-{n % 7}") for n in range(350)]
            assert sum(await asyncio.gather(*(till.add(0) for till in tills))) == 0
            await asyncio.gather(*(till.add() for till in tills))
            assert [await shop.TILL.id_from_name(f"many-{n}").count() for n in range(7)] == [50] * 7

    asyncio.run(main())


def test_threads_share_a_client(url: str) -> None:
    with connect_sync(Shop, url) as shop, ThreadPoolExecutor(16) as threads:
        till = shop.env.TILL.id_from_name("threads")
        results = list(threads.map(lambda _: shop.call(till.add), range(160)))
        assert sorted(results) == list(range(1, 161))


def _add_in_a_child(client: Any, results: Any) -> None:
    till = client.env.TILL.id_from_name("forked")
    results.put([client.call(till.add) for _ in range(3)])


@pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")
def test_a_client_that_was_made_before_a_fork_works_on_both_sides(url: str) -> None:
    fork = multiprocessing.get_context("fork")
    with connect_sync(Shop, url) as shop:
        till = shop.env.TILL.id_from_name("forked")
        assert shop.call(till.add) == 1  # so that a connection is open
        results = fork.Queue()
        child = fork.Process(target=_add_in_a_child, args=(shop, results))
        child.start()
        assert results.get(timeout=60) == [2, 3, 4]
        child.join()
        assert shop.call(till.add) == 5


def test_the_arguments_are_taken_when_the_call_is_written(url: str) -> None:
    async def main() -> None:
        async with connect(Shop, url) as shop:
            value = [1]
            call = shop.TILL.id_from_name("a").anything(value)
            value.append(2)
            assert await call == [1]

    asyncio.run(main())


def test_a_call_that_is_never_awaited_is_named_in_the_warning(url: str) -> None:
    async def main() -> None:
        async with connect(Shop, url) as shop:
            shop.TILL.id_from_name("alice").add()  # type: ignore[unused-coroutine]

    with pytest.warns(RuntimeWarning, match="'TILL/alice.add' was never awaited"):
        asyncio.run(main())


def test_a_cancelled_call_leaves_a_client_that_works(url: str) -> None:
    async def main() -> None:
        async with connect(Shop, url) as shop:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(shop.TILL.id_from_name("slow").wait(1.0), 0.1)
            assert await shop.TILL.id_from_name("after").add() == 1

    asyncio.run(main())


def test_calls_cancelled_at_any_moment_use_up_no_connection(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aio, "CONNECTIONS", 2)

    async def main() -> None:
        async with connect(Shop, url) as shop:
            till = shop.TILL.id_from_name("cancelled")
            cancelled = 0
            for n in range(200):
                task = asyncio.create_task(till.count())  # type: ignore[arg-type]
                for _ in range(n % 50):  # steps of the loop: the moments are those between them
                    await asyncio.sleep(0)
                cancelled += task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                assert await asyncio.wait_for(till.count(), 5.0) == 0
            assert cancelled > 20

    asyncio.run(main())


def test_use_after_the_end_is_refused(url: str) -> None:
    async def main() -> TillApi:
        async with connect(Shop, url) as shop:
            till = shop.TILL.id_from_name("a")
            await till.count()
        with pytest.raises(RuntimeError, match="closed"):
            await till.count()
        return till

    asyncio.run(main())
    shop = connect_sync(Shop, url)
    shop.call(shop.env.TILL.id_from_name("a").count)
    shop.close()
    shop.close()
    with pytest.raises(RuntimeError, match="closed"):
        shop.call(shop.env.TILL.id_from_name("a").count)
    with pytest.raises(RuntimeError, match="closed"), shop:
        pass


def test_a_call_under_way_at_the_end_still_gets_its_result(url: str) -> None:
    async def main() -> None:
        async with connect(Shop, url) as shop:
            await shop.TILL.id_from_name("ending").count()
            running = asyncio.create_task(shop.TILL.id_from_name("ending").anything("result"))
            await asyncio.sleep(0)  # it has begun
        assert await running == "result"

    asyncio.run(main())
    shop = connect_sync(Shop, url)
    with ThreadPoolExecutor(1) as thread:
        free = shop._slots._value
        running_in_thread = thread.submit(shop.call, shop.env.TILL.id_from_name("ending").wait, 0.3)
        asyncio.run(until(lambda: shop._slots._value < free, what="the call to begin"))
        shop.close()
        assert running_in_thread.result() is None


def test_a_sync_client_says_how_to_call(url: str) -> None:
    with connect_sync(Shop, url) as shop, connect_sync(Shop, url) as other:
        till = shop.env.TILL.id_from_name("a")
        with pytest.raises(TypeError, match=r"write call\(stub.count, ...\) instead of stub.count\(...\)"):
            till.count()  # type: ignore[unused-coroutine]
        for wrong in (other.env.TILL.id_from_name("a").count, functools.partial(till.count), "count"):
            with pytest.raises(TypeError, match="this client's stubs"):
                shop.call(wrong)  # type: ignore[arg-type]
        for name, says in {"TILL": "; the bindings are in env: write bank.env.TILL$", "cal": "has no 'cal'$"}.items():
            with pytest.raises(AttributeError, match=says):
                getattr(shop, name)


def test_a_stub_shows_its_id_and_names_what_was_meant(url: str) -> None:
    with connect_sync(Shop, url) as shop:
        till: Any = shop.env.TILL.id_from_name("alice")
        assert isinstance(till, ClientStub)
        assert repr(till) == "<stub TILL/alice>"
        assert till == shop.env.TILL.get_by_name("alice")
        with pytest.raises(AttributeError, match="did you mean 'count'"):
            _ = till.coutn
        with pytest.raises(AttributeError, match="bound are: TILL"):
            _ = shop.env.CURRENCY
        with pytest.raises(ValueError, match="belongs to OTHER, not to TILL"):
            shop.env.TILL.get("OTHER/a")
