from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.harness.wiring import (
    LIMIT_S,
    NAMESPACE,
    SHARDS,
    Asked,
    RunningHost,
    ScriptedEngine,
    Waits,
    address_of,
    bound,
    connect,
    hello,
    run,
    table,
)

from kubeactor.call import CODEC, JSON
from kubeactor.connection import ConnectionLost, Unwelcome, dial
from kubeactor.errors import ActorFencedError, ActorUnauthenticatedError, BodyTooLargeError, CodecError
from kubeactor.host import HostServer, place
from kubeactor.limits import BODY_BYTES, CALL_MAX_S
from kubeactor.placement import PlacementError, VolumeLost
from kubeactor.placement_file import load, save
from kubeactor.wire import Failure, Granted, GrantRequest, Inventory, InventoryRequest, Result, error_of


@asynccontextmanager
async def hosts(count: int = 1) -> AsyncIterator[list[RunningHost]]:
    running = [await RunningHost(ScriptedEngine(f"host-{n}", f"vol-{n}")).start() for n in range(count)]
    try:
        yield running
    finally:
        for host in running:
            await host.close()


def test_replies_leave_when_they_are_ready_not_in_the_order_of_the_calls() -> None:
    async def main() -> None:
        async with hosts() as [host]:
            host.engine.rule = lambda call: None
            client = await connect(host)
            slow, fast = Waits(), Waits()
            client.call(Asked(b"slow").call, 1, 1000, slow)
            client.call(Asked(b"fast").call, 1, 1000, fast)
            calls = await host.engine.has(2)
            calls[1].reply(b"2")
            assert (await fast.told).body == b"2"
            assert not slow.told.done()
            calls[0].reply(CodecError("no"))
            assert isinstance(error_of(await slow.told), CodecError)
            client.close("done")

    run(main())


def test_no_frame_gives_a_call_more_time_than_any_call_may_have() -> None:
    async def main() -> None:
        async with hosts() as [host]:
            host.engine.rule = lambda call: None
            client = await connect(host)
            now = asyncio.get_running_loop().time()
            for remaining_ms in (10**12, 500, 0, -5):
                client.call(Asked().call, 1, remaining_ms, Waits())
            deadlines = [call.deadline - now for call in await host.engine.has(4)]
            assert CALL_MAX_S <= deadlines[0] < CALL_MAX_S + LIMIT_S
            assert 0.4 < deadlines[1] < 0.5 + LIMIT_S
            assert [call.format for call in host.engine.calls] == [JSON] * 4
            client.abort("done")

    run(main())


def test_a_frame_without_an_epoch_is_for_no_owner() -> None:
    async def main() -> None:
        async with hosts() as [host]:
            client = await connect(host)
            for epoch in (0, 7):
                waiter = Waits()
                client.call(Asked().call, epoch, 1000, waiter)
                await waiter.told
            assert [call.epoch for call in host.engine.calls] == [-1, 7], "an engine takes 0 for any epoch"
            client.close("done")

    run(main())


def test_the_format_of_a_call_is_handed_on() -> None:
    async def main() -> None:
        async with hosts() as [host]:
            client = await connect(host)
            asked, waiter = Asked(), Waits()
            asked.call.format = CODEC
            client.call(asked.call, 1, 1000, waiter)
            await waiter.told
            assert host.engine.calls[0].format == CODEC
            client.close("done")

    run(main())


def test_a_result_above_the_limit_becomes_an_error_and_the_connection_lives() -> None:
    async def main() -> None:
        async with hosts() as [host]:
            host.engine.rule = lambda call: b"x" * (BODY_BYTES + len(call.body))
            client = await connect(host)
            largest, larger = Waits(), Waits()
            client.call(Asked(b"").call, 1, 1000, largest)
            client.call(Asked(b"1").call, 1, 1000, larger)
            assert isinstance(await largest.told, Result)
            error = error_of(await larger.told)
            assert (type(error), error.started) == (BodyTooLargeError, "yes")
            client.close("done")

    run(main())


def test_a_reply_to_a_dialer_that_left_is_dropped() -> None:
    async def main() -> None:
        async with hosts() as [host]:
            host.engine.rule = lambda call: None
            client = await connect(host)
            client.call(Asked().call, 1, 1000, Waits())
            [call] = await host.engine.has(1)
            assert host.server is not None
            [connection] = host.server.connections.values()
            client.close("left")
            await client.done.wait()
            await (await connect(host)).answer(InventoryRequest)
            assert connection.closed
            call.reply(b"nobody is there")

    run(main())


def test_only_an_operator_grants_and_grants_are_repeatable() -> None:
    async def main() -> None:
        async with hosts() as [host]:
            operator = await connect(host, role="operator", session=b"op")
            ingress = await connect(host)
            with pytest.raises(ActorUnauthenticatedError, match="an ingress may not grant"):
                await ingress.answer(lambda number: GrantRequest(number, [(0, 1)]))
            assert host.engine.states == []
            for _ in range(2):
                assert isinstance(await operator.answer(lambda number: GrantRequest(number, [(0, 1)])), Granted)
            inventory = await ingress.answer(InventoryRequest)
            assert isinstance(inventory, Inventory)
            assert (0, 1, "owned") in inventory.shards
            with pytest.raises(ActorFencedError, match="another epoch"):
                await operator.answer(lambda number: GrantRequest(number, [(0, 2)]))
            operator.close("done")
            ingress.close("done")

    run(main())


def test_an_inventory_beyond_a_frame_costs_that_connection_only() -> None:
    async def main() -> None:
        async with hosts() as [host]:
            client = await connect(host)
            host.engine.states = [(n, 1, "owned" * 1000) for n in range(1000)]
            with pytest.raises(ConnectionLost):
                await client.answer(InventoryRequest)
            host.engine.states = []
            assert isinstance(await (await connect(host)).answer(InventoryRequest), Inventory)

    run(main())


def test_credentials_can_be_rotated_while_connections_live() -> None:
    async def main() -> None:
        async with hosts() as [host]:
            assert host.server is not None
            host.server.credentials = (b"new", b"old")
            old = await connect(host, credentials=b"old")
            host.server.credentials = (b"new",)
            with pytest.raises(Unwelcome, match="wrong credentials"):
                await connect(host, credentials=b"old", session=b"s2")
            assert isinstance(await old.answer(InventoryRequest), Inventory)
            old.close("done")

    run(main())


def test_a_closing_server_sends_the_answers_that_are_ready() -> None:
    async def main() -> None:
        async with hosts() as [host]:
            client = await connect(host)
            asked = [Waits() for _ in range(3)]
            for waiter in asked:
                client.call(Asked(b"x" * 100_000).call, 1, 1000, waiter)
            await host.engine.has(3)
            assert host.server is not None
            await host.server.close()
            for waiter in asked:
                assert isinstance(await waiter.told, Result | Failure)
            await client.done.wait()

    run(main())


def test_a_server_that_closes_welcomes_nobody() -> None:
    async def main() -> None:
        async with hosts() as [host]:
            assert host.server is not None
            host.server._closing = True
            with pytest.raises(Unwelcome, match="shutting down"):
                await connect(host)

    run(main())


def test_a_server_listens_on_all_its_sockets(tmp_path: Path) -> None:
    async def main() -> None:
        unix = socket.socket(socket.AF_UNIX)
        unix.bind(str(tmp_path / "s"))
        tcp = bound()
        addresses = [str(tmp_path / "s"), address_of(tcp)]
        server = HostServer(ScriptedEngine(), [unix, tcp])
        await server.start()
        for n, address in enumerate(addresses):
            client = await dial(address, hello(session=b"%d" % n), LIMIT_S)
            assert isinstance(await client.answer(InventoryRequest), Inventory)
        await server.close()

    run(main())


# --- place


def addresses(running: list[RunningHost]) -> dict[str, str]:
    return {host.engine.host_id: host.address for host in running}


async def placed(running: list[RunningHost], path: Path, **options: Any) -> dict[str, list[int]]:
    given: dict[str, Any] = {"shards": SHARDS, "namespace_uid": NAMESPACE} | options
    result = await place(addresses(running), path, **given)
    return {host: result.shards_of(host) for host in result.volumes}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "placement.json"


def granted(host: RunningHost) -> list[int]:
    return [shard for shard, _, _ in host.engine.states]


def test_a_first_start_grants_equal_shares_and_saves_table_and_addresses(path: Path) -> None:
    async def main() -> None:
        async with hosts(2) as running:
            assert await placed(running, path) == {"host-0": [0, 1, 2, 3], "host-1": [4, 5, 6, 7]}
            assert [granted(host) for host in running] == [[0, 1, 2, 3], [4, 5, 6, 7]]
            stored = load(path)
            assert stored.addresses == addresses(running)
            assert stored.table.volumes == {"host-0": "vol-0", "host-1": "vol-1"}
            assert stored.table.owner(7) == ("host-1", 1)
            assert await placed(running, path) == {"host-0": [0, 1, 2, 3], "host-1": [4, 5, 6, 7]}
            assert [granted(host) for host in running] == [[0, 1, 2, 3], [4, 5, 6, 7]], "a second start grants nothing"

    run(main())


def test_a_start_that_was_cut_short_between_two_grants_goes_on(path: Path) -> None:
    async def main() -> None:
        async with hosts(2) as running:

            def killed(shards: object) -> None:
                raise ValueError("killed")

            grant = running[1].engine.grant
            running[1].engine.grant = killed  # type: ignore[method-assign]
            with pytest.raises(ActorFencedError, match="killed"):
                await placed(running, path)
            assert load(path).table.owner(0) is None, "nothing is served before all is stored"
            running[1].engine.grant = grant  # type: ignore[method-assign]
            assert await placed(running, path) == {"host-0": [0, 1, 2, 3], "host-1": [4, 5, 6, 7]}

    run(main())


def test_a_lost_table_is_rebuilt_from_the_volumes(path: Path) -> None:
    async def main() -> None:
        async with hosts(2) as running:
            await placed(running, path)
            before = load(path)
            path.unlink()
            await placed(running, path)
            assert load(path) == before

    run(main())


@pytest.mark.parametrize("keep_table", [True, False])
def test_an_emptied_volume_is_refused_and_nothing_granted(path: Path, keep_table: bool) -> None:
    async def main() -> None:
        async with hosts(2) as running:
            await placed(running, path)
            before = load(path)
            if not keep_table:
                path.unlink()
            running[1].engine.states = []
            with pytest.raises(VolumeLost if keep_table else PlacementError, match="hold"):
                await placed(running, path)
            running[1].engine.volume_id = "new"
            with pytest.raises(VolumeLost if keep_table else PlacementError):
                await placed(running, path)
            assert running[1].engine.states == []
            assert load(path) == before if keep_table else not path.exists()

    run(main())


def test_a_host_that_is_added_is_known_and_takes_no_shard_yet(path: Path) -> None:
    async def main() -> None:
        async with hosts(2) as running:
            await placed(running[:1], path)
            assert await placed(running, path) == {"host-0": list(range(8)), "host-1": []}
            assert await placed(running[:1], path) == {"host-0": list(range(8)), "host-1": []}
            with pytest.raises(PlacementError, match="host-0 owns shards 0-7 and is not among the hosts"):
                await placed(running[1:], path)

    run(main())


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"shards": 16}, "the number of shards never changes"),
        ({"namespace_uid": "another"}, "not of 'another'"),
        ({"credentials": b"wrong"}, "wrong credentials"),
    ],
)
def test_what_does_not_belong_together_is_refused(path: Path, options: dict[str, Any], complaint: str) -> None:
    async def main() -> None:
        async with hosts() as running:
            await placed(running, path)
            with pytest.raises(PlacementError, match=complaint):
                await placed(running, path, **options)

    run(main())


def test_hosts_that_are_not_what_was_meant_are_refused(path: Path) -> None:
    async def main() -> None:
        async with hosts(2) as [one, two]:
            with pytest.raises(PlacementError, match="says that it is host-1"):
                await place({"host-0": two.address}, path, SHARDS, NAMESPACE)
            with pytest.raises(PlacementError, match="host-0 has 8 shards, the table 4"):
                await placed([one], path, shards=4)
            assert granted(one) == []
            assert not path.exists()

    run(main())


def test_a_damaged_table_is_refused_and_kept(path: Path) -> None:
    async def main() -> None:
        async with hosts() as running:
            path.write_bytes(b"{")
            with pytest.raises(PlacementError, match="can't be used"):
                await placed(running, path)
            assert path.read_bytes() == b"{"
            assert granted(running[0]) == []

    run(main())


def test_a_host_that_still_starts_is_waited_for_and_one_that_never_does_is_not(path: Path) -> None:
    async def main() -> None:
        sock = bound()
        placing = asyncio.ensure_future(place({"host-0": address_of(sock)}, path, SHARDS, NAMESPACE))
        await asyncio.sleep(0)
        server = HostServer(ScriptedEngine(), [sock])
        await server.start()
        assert (await placing).shards_of("host-0") == list(range(8))
        await server.close()
        save(path, table(), {})
        free = bound()
        with pytest.raises(TimeoutError):
            await place({"host-0": address_of(free)}, path, SHARDS, NAMESPACE, timeout_s=0.1)
        free.close()

    run(main())
