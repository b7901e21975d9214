"""`self.ctx.storage`: reads through the overlay, order, savepoints, limits."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from tests.harness.engine import Machine, failure, on_engine, pauses

from kubeactor import (
    Actor,
    ActorArgumentError,
    ActorFencedError,
    AlarmInfo,
    CodecError,
    Key,
    StorageLimitError,
    StorageTypeError,
)
from kubeactor.limits import KEY_BYTES, VALUE_BYTES
from kubeactor.storage import after_prefix, from_us, merged, to_us

MIB = 1024 * 1024
COUNT = Key("count", int, 0)
TAGS = Key[list[str]]("tags", list[str], [])


class Colour(enum.StrEnum):
    RED = "red"


class Box(Actor):
    """Its one method runs what the test hands it, so that each test reads as a method would."""

    async def run(self, name: str) -> Any:
        return await SCRIPTS[name](self)

    async def alarm(self, info: AlarmInfo, /) -> None: ...


class NoAlarm(Actor):
    async def set(self) -> None:
        self.ctx.storage.set_alarm(timedelta(seconds=1))


SCRIPTS: dict[str, Any] = {}


async def do(m: Machine, *scripts: Any, name: str = "a") -> Any:
    """Run each script as a turn of its own; the last one's result."""
    result = None
    for script in scripts:
        SCRIPTS["script"] = script
        result = await m.call("BOX", name, "run", "script")
    return result


async def refused(m: Machine, script: Any) -> Exception:
    SCRIPTS["script"] = script
    return await failure(m.send("BOX", "a", "run", "script"))


async def put_many(box: Box) -> None:
    box.ctx.storage.put({f"k{i:02}": i for i in range(10)})
    box.ctx.storage.put({"a": 1, "é": 2, "z": 3, "\U0001f600": 4, "\uffff": 5, "": 6})


@on_engine(Box)
async def test_writes_take_effect_at_the_call_without_an_await(m: Machine) -> None:
    async def write(box: Box) -> Any:
        storage = box.ctx.storage
        storage.put("x", 1)
        storage.put({"y": 2, "z": 3})
        storage.put(COUNT, 4)
        storage.delete("z")
        return [await storage.get("x"), await storage.get(["x", "y", "z"]), await storage.get(COUNT)]

    assert await do(m, write) == [1, {"x": 1, "y": 2}, 4]
    m.crash()

    async def read(box: Box) -> Any:
        return await box.ctx.storage.list()

    assert await do(m, read) == {"count": 4, "x": 1, "y": 2}


@on_engine(Box)
async def test_reads_give_defaults_and_deletes_say_what_was_there(m: Machine) -> None:
    async def script(box: Box) -> Any:
        storage = box.ctx.storage
        storage.put({"a": 1, "b": None})
        return [
            await storage.get("missing"),
            await storage.get("missing", 7),
            await storage.get("b", 7),
            await storage.get(COUNT),
            await storage.get([]),
            await storage.delete("a"),
            await storage.delete("a"),
            await storage.delete(["a", "b", "c"]),
            await storage.delete(COUNT),
        ]

    assert await do(m, script) == [None, 7, None, 0, {}, True, False, 1, False]


@on_engine(Box)
async def test_a_default_is_copied_and_a_value_too(m: Machine) -> None:
    async def script(box: Box) -> Any:
        storage = box.ctx.storage
        tags = await storage.get(TAGS)
        tags.append("mine")
        value = {"list": [1]}
        storage.put("value", value)
        value["list"].append(2)
        (await storage.get("value"))["list"].append(3)
        return [await storage.get(TAGS), await storage.get("value")]

    assert await do(m, script) == [[], {"list": [1]}]


@on_engine(Box)
async def test_order_is_of_utf8_bytes_and_a_list_lays_the_overlay_over_what_is_stored(m: Machine) -> None:
    order = ["", "a", *(f"k{i:02}" for i in range(10)), "z", "é", "\uffff", "\U0001f600"]

    async def everything(box: Box) -> Any:
        return list(await box.ctx.storage.list())

    assert await do(m, put_many, everything) == order

    async def overlaid(box: Box) -> Any:
        storage = box.ctx.storage
        storage.put("k025", "new")
        storage.delete("k03")
        storage.put("k04", "changed")
        return [
            await storage.list(prefix="k0", limit=6),
            list(await storage.list(prefix="k0", reverse=True)),
            list(await storage.list(start="k08", end="z")),
            list(await storage.list(start_after="k08", end="k09")),
            list(await storage.list(start="k09", end="k01")),
            list(await storage.list(prefix="k", start="a", end="k01")),
            list(await storage.list(prefix="\U0001f600")),
            list(await storage.list(prefix="nothing")),
        ]

    assert await do(m, overlaid) == [
        {"k00": 0, "k01": 1, "k02": 2, "k025": "new", "k04": "changed", "k05": 5},
        ["k09", "k08", "k07", "k06", "k05", "k04", "k025", "k02", "k01", "k00"],
        ["k08", "k09"],
        [],
        [],
        ["k00"],
        ["\U0001f600"],
        [],
    ]


@on_engine(Box)
async def test_scan_goes_through_any_number_both_ways_a_page_at_a_time(m: Machine) -> None:
    async def fill(box: Box) -> None:
        for page in range(3):
            box.ctx.storage.put({f"{page}{i:03}": i for i in range(1000)})

    async def count(box: Box) -> Any:
        storage = box.ctx.storage
        forward = [key async for key, _ in storage.scan()]
        backward = [key async for key, _ in storage.scan(reverse=True)]
        part = [key async for key, _ in storage.scan(prefix="1", start="1500", end="1503")]
        return [len(forward), forward == sorted(forward), backward == forward[::-1], part]

    assert await do(m, fill, count) == [3000, True, True, ["1500", "1501", "1502"]]

    async def deleting(box: Box) -> Any:
        async for key, _ in box.ctx.storage.scan():
            box.ctx.storage.delete(key)
        return await box.ctx.storage.list()

    assert await do(m, deleting) == {}


@on_engine(Box)
async def test_scan_reads_big_values_a_few_at_a_time(m: Machine) -> None:
    async def fill(box: Box) -> None:
        for i in range(7):
            box.ctx.storage.put(f"k{i}", bytes(VALUE_BYTES - 100))

    async def scan(box: Box) -> Any:
        return [key async for key, value in box.ctx.storage.scan() if len(value) > MIB]

    assert await do(m, fill, scan) == [f"k{i}" for i in range(7)]


@on_engine(Box)
async def test_delete_all_hides_everything_until_the_batch_takes_it(m: Machine) -> None:
    async def clear(box: Box) -> Any:
        storage = box.ctx.storage
        storage.set_alarm(timedelta(hours=1))
        storage.put("before", 1)
        storage.delete_all()
        storage.put("after", 2)
        return [await storage.list(), await storage.get("k01"), await storage.get_alarm()]

    async def read(box: Box) -> Any:
        return await box.ctx.storage.list()

    assert await do(m, put_many, clear) == [{"after": 2}, None, None]
    assert await do(m, read) == {"after": 2}
    m.crash()
    assert await do(m, read) == {"after": 2}


@on_engine(Box)
async def test_delete_all_takes_thousands_of_rows_and_none_of_other_instances(m: Machine) -> None:
    async def fill(box: Box) -> None:
        for page in range(2):
            box.ctx.storage.put({f"{page}{i:03}": i for i in range(1000)})

    async def clear(box: Box) -> None:
        box.ctx.storage.delete_all()

    async def count(box: Box) -> Any:
        return len([key async for key, _ in box.ctx.storage.scan()])

    for name in ("a", "ab", "a/b", "b"):
        await do(m, fill, name=name)
    await do(m, clear, name="a")
    assert [await do(m, count, name=name) for name in ("a", "ab", "a/b", "b")] == [0, 2000, 2000, 2000]


@on_engine(Box)
async def test_delete_all_may_keep_the_alarm(m: Machine) -> None:
    async def script(box: Box) -> Any:
        box.ctx.storage.set_alarm(timedelta(hours=1))
        box.ctx.storage.delete_all(keep_alarm=True)
        return await box.ctx.storage.get_alarm() == box.ctx.now() + timedelta(hours=1)

    assert await do(m, script) is True


@on_engine(Box)
async def test_an_exception_inside_a_transaction_discards_its_own_writes_only(m: Machine) -> None:
    async def script(box: Box) -> Any:
        storage = box.ctx.storage
        storage.put("outer", 1)
        with pytest.raises(ValueError, match="inner"):  # noqa: PT012
            async with storage.transaction():
                storage.put({"outer": 2, "inner": 2})
                storage.set_alarm(timedelta(hours=1))
                box.ctx.send(box.env.BOX.id_from_name("b").run, "nothing")
                async with storage.transaction():
                    storage.put("deepest", 3)
                    storage.delete("outer")
                raise ValueError("inner")
        async with storage.transaction():
            storage.put("kept", 4)
            with pytest.raises(KeyError):  # noqa: PT012
                async with storage.transaction():
                    storage.delete_all()
                    raise KeyError
        return [await storage.list(), await storage.get_alarm()]

    assert await do(m, script) == [{"kept": 4, "outer": 1}, None]
    assert m.engine.outbox.pending_in_memory == 0


@on_engine(Box)
async def test_a_turn_that_was_cancelled_inside_a_transaction_ends_without_a_trace(m: Machine) -> None:
    async def script(box: Box) -> Any:
        with pytest.raises(TimeoutError):  # noqa: PT012
            async with asyncio.timeout(0.01), box.ctx.storage.transaction():
                box.ctx.storage.put("x", 1)
                await asyncio.sleep(10)
        return await box.ctx.storage.list()

    assert await do(m, script) == {}


@on_engine(Box)
async def test_limits_raise_at_the_call_and_leave_the_turn_usable(m: Machine) -> None:
    async def script(box: Box) -> Any:
        storage = box.ctx.storage
        storage.put("k" * KEY_BYTES, b"x" * (VALUE_BYTES - 100))
        storage.put("é" * (KEY_BYTES // 2), 1)
        for wrong in (
            lambda: storage.put("k" * (KEY_BYTES + 1), 1),
            lambda: storage.put("é" * (KEY_BYTES // 2) + "x", 1),
            lambda: storage.put("big", b"x" * VALUE_BYTES),
            lambda: storage.put({f"k{i}": i for i in range(1001)}),
            lambda: storage.put({"good": 1, "big": b"x" * VALUE_BYTES}),
            lambda: storage.delete([f"k{i}" for i in range(1001)]),
            lambda: storage.delete("k" * (KEY_BYTES + 1)),
        ):
            with pytest.raises(StorageLimitError):
                wrong()
        with pytest.raises(StorageLimitError):
            await storage.get(["k"] * 1001)
        assert await storage.get("good") is None
        storage.put({f"k{i}": i for i in range(1000)})
        return len(await storage.list(prefix="k", limit=1000))

    assert await do(m, script) == 1000


@on_engine(Box)
async def test_a_turn_writes_at_most_16_mib(m: Machine) -> None:
    async def script(box: Box) -> Any:
        for i in range(8):
            box.ctx.storage.put(f"k{i}", b"x" * (VALUE_BYTES - 4096))
        with pytest.raises(StorageLimitError, match="a turn writes at most"):
            box.ctx.storage.put("last", b"x" * 40000)
        with pytest.raises(StorageLimitError):
            box.ctx.storage.put({"one": 1, "two": b"x" * 40000})
        return [await box.ctx.storage.get("last"), await box.ctx.storage.get("one")]

    assert await do(m, script) == [None, None]


@on_engine(Box)
async def test_list_never_cuts_silently(m: Machine) -> None:
    async def fill(box: Box) -> None:
        box.ctx.storage.put({f"k{i:04}": i for i in range(1000)})

    async def one_more(box: Box) -> Any:
        assert len(await box.ctx.storage.list()) == 1000
        box.ctx.storage.put("last", 1)
        with pytest.raises(StorageLimitError, match="more than 1000"):
            await box.ctx.storage.list()
        return len(await box.ctx.storage.list(limit=1000))

    assert await do(m, fill, one_more) == 1000


@on_engine(Box)
async def test_the_answer_of_a_list_has_at_most_16_mib(m: Machine) -> None:
    async def fill(box: Box) -> None:
        start = len(await box.ctx.storage.list(limit=5))
        for i in range(5):
            box.ctx.storage.put(f"k{start + i}", bytes(VALUE_BYTES - 100))

    async def listing(box: Box) -> Any:
        with pytest.raises(StorageLimitError, match="bytes"):
            await box.ctx.storage.list()
        return len(await box.ctx.storage.list(limit=7))

    assert await do(m, fill, fill, listing) == 7


@on_engine(Box)
async def test_wrong_uses_say_what_to_write(m: Machine) -> None:
    async def script(box: Box) -> None:
        storage: Any = box.ctx.storage
        calls: tuple[Callable[[], object], ...] = (
            lambda: storage.put("x"),
            lambda: storage.put({"x": 1}, 2),
            lambda: storage.put(1, 2),
            lambda: storage.put(COUNT),
            lambda: storage.put({1: 2}),
            lambda: storage.put("\ud800", 1),
            lambda: storage.delete(3),
            lambda: storage.set_alarm(60),
            lambda: storage.set_alarm(datetime(2030, 1, 1)),
            lambda: storage.set_alarm(timedelta.max),
        )
        for wrong in calls:
            with pytest.raises(ActorArgumentError):
                wrong()
        for coroutine in (
            storage.get(7),
            storage.list(limit=0),
            storage.list(limit=1001),
            storage.list(limit="10"),
            storage.list(start="a", start_after="b"),
        ):
            with pytest.raises(ActorArgumentError):
                await coroutine
        with pytest.raises(CodecError, match=r"\$\.items\[1\]"):
            storage.put("x", {"items": [1, object()]})
        with pytest.raises(StorageTypeError, match="count"):
            storage.put(COUNT, "thirty")
        storage.put("count", "text")
        with pytest.raises(StorageTypeError, match="count"):
            await storage.get(COUNT)

    await do(m, script)


@on_engine(Box)
async def test_a_key_may_be_any_subclass_of_str(m: Machine) -> None:
    async def script(box: Box) -> Any:
        box.ctx.storage.put(Colour.RED, 1)
        return [await box.ctx.storage.get(Colour.RED), await box.ctx.storage.get("red")]

    assert await do(m, script) == [1, 1]


@on_engine(Box, NoAlarm)
async def test_alarm_times_are_aware_and_never_before_now(m: Machine) -> None:
    async def script(box: Box) -> Any:
        storage, now = box.ctx.storage, box.ctx.now()
        found = []
        for when in (timedelta(seconds=5), timedelta(days=-5), now.astimezone(timezone(timedelta(hours=2)))):
            storage.set_alarm(when)
            due = await storage.get_alarm()
            assert due is not None
            found.append((due - now).total_seconds())
        storage.delete_alarm()
        return [*found, await storage.get_alarm(), now == from_us(to_us(now)), now.tzinfo is UTC]

    assert await do(m, script) == [5, 0, 0, None, True, True]
    assert "has no `async def alarm" in (await m.error("NO_ALARM", "a", "set")).detail


@on_engine(Box)
async def test_storage_belongs_to_its_own_instance(m: Machine) -> None:
    async def leak(box: Box) -> None:
        pauses.log.append(box.ctx)

    await do(m, leak, name="other")

    async def script(box: Box) -> None:
        other = pauses.log[0]
        with pytest.raises(ActorFencedError, match="its instance's own turns"):
            other.storage.put("x", 1)
        with pytest.raises(ActorFencedError):
            other.now()

    await do(m, script)
    with pytest.raises(ActorFencedError, match="inside a turn only"):
        pauses.log[0].storage.put("x", 1)


@on_engine(Box)
async def test_on_a_nearly_full_disk_reads_and_deletes_go_on(m: Machine) -> None:
    await do(m, put_many)
    m.engine.disk_full = True

    async def read_and_delete(box: Box) -> Any:
        box.ctx.storage.delete("k01")
        return await box.ctx.storage.get(["k01", "k02"])

    async def write(box: Box) -> None:
        box.ctx.storage.put("x", 1)

    assert await do(m, read_and_delete) == {"k02": 2}
    error = await refused(m, write)
    assert isinstance(error, StorageLimitError)
    assert error.http_status() == 507


@on_engine(Box)
async def test_small_values_are_cached_and_the_cache_follows_the_commits(m: Machine) -> None:
    async def fill(box: Box) -> None:
        box.ctx.storage.put({f"k{i}": i for i in range(50)})
        box.ctx.storage.put("big", "x" * 5000)

    async def change(box: Box) -> None:
        box.ctx.storage.put("big", "small")
        box.ctx.storage.delete("k1")
        box.ctx.storage.put("k2", "x" * 5000)

    async def read(box: Box) -> Any:
        found = await box.ctx.storage.get(["big", "k1", "k2", "k3"])
        return {key: value if value != "x" * 5000 else "long" for key, value in found.items()}

    assert await do(m, fill, read) == {"big": "long", "k1": 1, "k2": 2, "k3": 3}
    assert await do(m, change, read) == {"big": "small", "k2": "long", "k3": 3}
    m.crash()
    assert await do(m, read) == {"big": "small", "k2": "long", "k3": 3}


def test_the_end_of_a_prefix_is_the_first_key_behind_it() -> None:
    assert after_prefix(b"ab") == b"ac"
    assert after_prefix(b"a\xff\xff") == b"b"
    assert after_prefix(b"") is None


def test_merging_stops_at_its_bounds() -> None:
    stored = [(b"a", b"1"), (b"b", b"2"), (b"d", b"4")]
    overlay: list[tuple[bytes, bytes | None]] = [(b"b", None), (b"c", b"3"), (b"d", b"5")]
    assert merged(iter(stored), overlay, False, 9, 99) == [(b"a", b"1"), (b"c", b"3"), (b"d", b"5")]
    assert merged(iter(stored[::-1]), overlay[::-1], True, 2, 99) == [(b"d", b"5"), (b"c", b"3")]
    assert merged(iter(stored), overlay, False, 9, 1) == [(b"a", b"1")]
