from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.harness.wiring import (
    LIMIT_S,
    NAMESPACE,
    Asked,
    RunningHost,
    ScriptedEngine,
    Waits,
    bound,
    connect,
    hello,
    run,
)

from kubeactor import connection as connections
from kubeactor.connection import FLUSH_FRAMES, ConnectionLost, ServerConnection, Unwelcome, dial
from kubeactor.errors import ActorFencedError, BodyTooLargeError
from kubeactor.host import HostServer
from kubeactor.limits import BODY_BYTES
from kubeactor.wire import (
    FRAME_BYTES,
    VERSION,
    CallFrame,
    Frame,
    GrantRequest,
    Hello,
    Inventory,
    InventoryRequest,
    Probe,
    Refused,
    Result,
    Welcome,
    decode,
    encode,
    frame_size,
    measured,
)


@asynccontextmanager
async def host(credentials: tuple[bytes, ...] = (b"",)) -> AsyncIterator[RunningHost]:
    running = await RunningHost(ScriptedEngine(), credentials).start()
    try:
        yield running
    finally:
        await running.close()


def framed(frame: Frame) -> bytes:
    payload = encode(frame)
    return measured(payload) + payload


async def read_frame(reader: asyncio.StreamReader) -> Frame:
    size = frame_size(await reader.readexactly(4), 0)
    return decode(await reader.readexactly(size))


class Raw:
    """A connection whose bytes the test writes itself."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, running: RunningHost, *frames: Frame) -> Raw:
        name, _, port = running.address.rpartition(":")
        raw = cls(*await asyncio.open_connection(name, int(port)))
        raw.send(*frames)
        return raw

    def send(self, *frames: Frame | bytes) -> None:
        for frame in frames:
            self.writer.write(frame if isinstance(frame, bytes) else framed(frame))

    async def cut(self) -> bytes:
        """What still came until the other side cut the connection."""
        rest = b""
        try:
            while data := await self.reader.read(65536):
                rest += data
        except ConnectionResetError:
            pass
        self.writer.close()
        return rest


def call_frame(number: int = 1, body: bytes = b"{}") -> CallFrame:
    return CallFrame(number, 0, 1, "ACCOUNT", b"alice", "debit", 0, body, 10_000)


def test_an_answer_finds_its_question_whatever_the_order() -> None:
    async def main() -> None:
        async with host() as running:
            running.engine.rule = lambda call: None
            client = await connect(running)
            asked = [Waits() for _ in range(3)]
            for n, waiter in enumerate(asked):
                client.call(Asked(b"%d" % n).call, 1, 1000, waiter)
            for call in reversed(await running.engine.has(3)):
                call.reply(b"re:" + call.body)
            assert [(await waiter.told).body for waiter in asked] == [b"re:0", b"re:1", b"re:2"]
            assert client.waiting == 0
            client.close("done")

    run(main())


def test_frames_of_one_tick_leave_in_few_writes_and_the_first_ones_at_once() -> None:
    async def main() -> None:
        async with host() as running:
            client = await connect(running)
            writes: list[int] = []
            transport = client.transport

            class Counted:
                def write(self, data: bytes) -> None:
                    writes.append(len(data))
                    assert transport is not None
                    transport.write(data)

            client.transport = Counted()  # type: ignore[assignment]
            asked = [Waits() for _ in range(3 * FLUSH_FRAMES + 1)]
            for waiter in asked:
                client.call(Asked().call, 1, 1000, waiter)
            assert len(writes) == 3  # so the host begins while this tick still makes calls
            for waiter in asked:
                await waiter.told
            client.transport = transport
            assert len(writes) == 4
            client.close("done")

    run(main())


def test_bodies_up_to_the_limit_pass_both_ways_in_any_cut() -> None:
    async def main() -> None:
        async with host() as running:
            client = await connect(running)
            bodies = [b"x" * BODY_BYTES, b"", b"y" * 70_000, b"z" * (BODY_BYTES - 1)]
            asked = [Waits() for _ in bodies]
            for body, waiter in zip(bodies, asked, strict=True):
                client.call(Asked(body).call, 1, 1000, waiter)
            for body, waiter in zip(bodies, asked, strict=True):
                assert (await waiter.told).body == body
            client.close("done")

    run(main())


def test_a_frame_that_arrives_byte_by_byte_is_one_frame() -> None:
    async def main() -> None:
        frames: list[Frame] = []
        server = ServerConnection(lambda c, h: WELCOME, lambda c, frame: frames.append(frame), lambda c: None)
        for byte in framed(hello()) + framed(call_frame(1)) + framed(call_frame(2)):
            server.data_received(bytes([byte]))
        assert frames == [call_frame(1), call_frame(2)]
        server.ended()

    run(main())


def test_a_call_that_fits_no_frame_is_refused_before_it_is_sent() -> None:
    async def main() -> None:
        async with host() as running:
            client = await connect(running)
            with pytest.raises(BodyTooLargeError):
                client.call(Asked(b"x" * FRAME_BYTES).call, 1, 1000, Waits())
            assert client.waiting == 0
            inventory = await client.answer(InventoryRequest)
            assert isinstance(inventory, Inventory), "the connection goes on"
            client.close("done")

    run(main())


def test_a_lost_connection_tells_what_was_sent_and_what_was_not() -> None:
    async def main() -> None:
        async with host() as running:
            running.engine.rule = lambda call: None
            client = await connect(running)
            sent, unsent = Waits(), Waits()
            client.call(Asked().call, 1, 1000, sent)
            await running.engine.has(1)
            client.call(Asked().call, 1, 1000, unsent)
            client.abort("test")
            for waiter, was_sent in ((sent, True), (unsent, False)):
                with pytest.raises(ConnectionLost) as lost:
                    await waiter.told
                assert lost.value.sent is was_sent
            with pytest.raises(ConnectionLost, match="test") as refused:
                await client.answer(InventoryRequest)
            assert not refused.value.sent

    run(main())


def test_a_request_fails_with_the_error_that_the_host_gave_or_with_the_connection() -> None:
    async def main() -> None:
        async with host() as running:
            client = await connect(running, role="operator")
            await client.answer(lambda number: GrantRequest(number, [(0, 1)]))
            with pytest.raises(ActorFencedError, match="another epoch"):
                await client.answer(lambda number: GrantRequest(number, [(0, 2)]))
            with pytest.raises(ConnectionLost):
                await client.answer(lambda number: Probe(number, 0, 1, b""))  # malformed: cut
            given_up = asyncio.ensure_future(client.answer(InventoryRequest))
            given_up.cancel()
            await asyncio.gather(given_up, return_exceptions=True)

    run(main())


def test_an_answer_to_a_request_that_was_given_up_is_no_fault() -> None:
    async def main() -> None:
        async with host() as running:
            client = await connect(running)
            given_up = asyncio.ensure_future(client.answer(InventoryRequest))
            await asyncio.sleep(0)
            given_up.cancel()
            assert isinstance(await client.answer(InventoryRequest), Inventory)
            lost = asyncio.ensure_future(client.answer(InventoryRequest))
            await asyncio.sleep(0)
            lost.cancel()
            await asyncio.sleep(0)
            client.abort("test")
            await client.done.wait()

    run(main())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"version": VERSION + 1}, "protocol version 2 is not 1"),
        ({"namespace": "another"}, "belongs to namespace 'uid-1', not 'another'"),
        ({"credentials": b"wrong"}, "wrong credentials"),
        ({"credentials": b""}, "wrong credentials"),
    ],
)
def test_a_wrong_hello_is_refused_with_the_reason(changes: dict[str, object], reason: str) -> None:
    async def main() -> None:
        async with host((b"new", b"old")) as running:
            with pytest.raises(Unwelcome, match=reason):
                await connect(running, **({"credentials": b"old"} | changes))
            (await connect(running, credentials=b"new")).close("done")
            (await connect(running, credentials=b"old")).close("done")

    run(main())


HOSTILE: dict[str, bytes] = {
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "garbage in a frame": measured(b"?" * 10) + b"?" * 10,
    "an empty frame": b"\0\0\0\0",
    "an oversized frame": (FRAME_BYTES + 1).to_bytes(4, "big") + b"x",
    "the largest length": b"\xff\xff\xff\xff",
}
BEFORE = {
    "a call before the hello": framed(call_frame()),
    "an oversized hello": framed(hello(credentials=b"x" * 20_000)),
    "an answer for a hello": framed(Result(1, b"")),
}
AFTER = {
    "a second hello": framed(hello()),
    "an answer from a dialer": framed(Result(1, b"")),
    "a welcome from a dialer": framed(Welcome(1, NAMESPACE, "h", "v", 8)),
    "a malformed probe": framed(Probe(1, 0, 1, b"")),
}


@pytest.mark.parametrize("sent", (HOSTILE | BEFORE).values(), ids=(HOSTILE | BEFORE).keys())
def test_hostile_bytes_before_the_hello_end_that_connection_only(sent: bytes) -> None:
    async def main() -> None:
        async with host() as running:
            good = await connect(running)
            raw = await Raw.open(running)
            raw.send(sent)
            assert await raw.cut() == b""
            assert isinstance(await good.answer(InventoryRequest), Inventory)
            good.close("done")

    run(main())


@pytest.mark.parametrize("sent", (HOSTILE | AFTER).values(), ids=(HOSTILE | AFTER).keys())
def test_hostile_bytes_after_the_hello_end_that_connection_only(sent: bytes) -> None:
    async def main() -> None:
        async with host() as running:
            good = await connect(running)
            raw = await Raw.open(running, hello(session=b"s2"))
            assert isinstance(await read_frame(raw.reader), Welcome)
            raw.send(sent, call_frame(9, b"after the fault"))
            await raw.cut()
            assert isinstance(await good.answer(InventoryRequest), Inventory)
            assert running.engine.calls == [], "nothing after the fault is heard"
            good.close("done")

    run(main())


def test_a_connection_that_ends_within_a_frame_did_not_send_it() -> None:
    async def main() -> None:
        async with host() as running:
            raw = await Raw.open(running, hello())
            assert isinstance(await read_frame(raw.reader), Welcome)
            raw.send(framed(call_frame())[:-1])
            raw.writer.write_eof()
            assert await raw.cut() == b""
            assert running.engine.calls == []
            assert running.server is not None
            assert running.server.connections == {}

    run(main())


def test_who_says_no_hello_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HELLO_S", 0.05)

    async def main() -> None:
        async with host() as running:
            assert await (await Raw.open(running)).cut() == b""

    run(main())


def test_a_newer_connection_of_a_session_ends_the_earlier_one() -> None:
    async def main() -> None:
        async with host() as running:
            first = await connect(running)
            second = await connect(running)
            await first.done.wait()
            assert isinstance(await second.answer(InventoryRequest), Inventory)
            other = await connect(running, session=b"s2")
            assert isinstance(await second.answer(InventoryRequest), Inventory)
            second.close("done")
            other.close("done")

    run(main())


def test_who_reads_no_answers_is_not_heard_and_then_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "UNREAD_BYTES", 8 * 1024 * 1024)

    async def main() -> None:
        async with host() as running:
            running.engine.rule = lambda call: None
            raw = await Raw.open(running, hello())
            for number in range(30):
                raw.send(call_frame(number))
            assert running.server is not None
            for call in list(await running.engine.has(30)):
                call.reply(b"x" * (1024 * 1024))
            connection = next(iter(running.server.connections.values()), None)
            assert connection is None or connection.closed
            got = await raw.cut()
            assert len(got) < 30 * 1024 * 1024
            assert isinstance(await (await connect(running)).answer(InventoryRequest), Inventory)

    run(main())


def test_a_slow_reader_gets_all_its_answers() -> None:
    async def main() -> None:
        async with host() as running:
            raw = await Raw.open(running, hello())
            for number in range(20):
                raw.send(call_frame(number, b"x" * 1_000_000))
            assert isinstance(await read_frame(raw.reader), Welcome)
            for number in range(20):
                answer = await read_frame(raw.reader)
                assert isinstance(answer, Result)
                assert (answer.number, len(answer.body)) == (number, 1_000_000)
            raw.writer.close()

    run(main())


class FakeHost:
    """Listens and behaves as the test says: the hostile side of a dialer."""

    def __init__(self, *frames: Frame | bytes, hang_up: bool = False) -> None:
        self.frames = frames
        self.hang_up = hang_up
        self.dialed = asyncio.Event()
        self.writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> str:
        self.server = await asyncio.start_server(self._serve, sock=bound())
        return "127.0.0.1:%d" % self.server.sockets[0].getsockname()[1]  # noqa: UP031

    async def __aexit__(self, *error: object) -> None:
        self.server.close()
        for writer in self.writers:
            writer.close()
        await self.server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        assert isinstance(await read_frame(reader), Hello)
        self.dialed.set()
        for frame in self.frames:
            writer.write(frame if isinstance(frame, bytes) else framed(frame))
        if self.hang_up:
            writer.close()


WELCOME = Welcome(VERSION, NAMESPACE, "host-0", "vol-0", 8)


@pytest.mark.parametrize(
    ("frames", "complaint"),
    [
        ([Refused(1, "go away")], "refused: go away"),
        ([Welcome(1, "another", "host-0", "vol-0", 8)], "namespace 'another', not 'uid-1'"),
        ([Result(1, b"")], "a Result from a host"),
        ([hello()], "a Hello from a host"),
        ([b"HTTP/1.1 400 Bad Request\r\n\r\n"], "a frame of 1213486160 bytes"),
        ([b"\0\0\0\x05hello"], "not a frame"),
    ],
)
def test_a_dialer_refuses_what_is_no_host_of_its_namespace(frames: list[Frame | bytes], complaint: str) -> None:
    async def main() -> None:
        async with FakeHost(*frames) as address:
            with pytest.raises(Unwelcome, match=complaint):
                await dial(address, hello(), LIMIT_S)

    run(main())


def test_a_host_that_hangs_up_or_says_nothing_was_not_reached() -> None:
    async def main() -> None:
        async with FakeHost(hang_up=True) as address:
            with pytest.raises(Unwelcome, match="closed by the peer"):
                await dial(address, hello(), LIMIT_S)
        async with FakeHost() as address:
            with pytest.raises(TimeoutError):
                await dial(address, hello(), 0.05)
        free = bound()
        with pytest.raises(OSError, match="refused"):
            await dial("127.0.0.1:%d" % free.getsockname()[1], hello(), LIMIT_S)  # noqa: UP031
        free.close()

    run(main())


@pytest.mark.parametrize("answer", [Result(77, b""), Inventory(77, [])], ids=lambda answer: type(answer).__name__)
def test_an_answer_that_nobody_asked_for_ends_the_connection(answer: Frame) -> None:
    async def main() -> None:
        async with FakeHost(WELCOME, answer) as address:
            client = await dial(address, hello(), LIMIT_S)
            await client.done.wait()
            assert client.reason == "an answer to 77, which was not asked"

    run(main())


def test_a_host_that_takes_nothing_is_sent_no_more() -> None:
    async def main() -> None:
        async with host() as running:
            client = await connect(running)
            assert running.server is not None
            assert client.usable
            resumed = asyncio.Event()
            client.resumed = resumed.set
            connection = next(iter(running.server.connections.values()))
            assert connection.transport is not None
            connection.transport.pause_reading()
            asked = []
            while client.usable:
                asked.append(Waits())
                client.call(Asked(b"x" * 2_000_000).call, 1, 1000, asked[-1])
            held = Waits()
            client.call(Asked(b"held back").call, 1, 1000, held)
            connection.transport.resume_reading()
            await resumed.wait()
            assert client.usable
            for waiter in asked:
                assert len((await waiter.told).body) == 2_000_000
            assert (await held.told).body == b"held back"
            client.close("done")

    run(main())


def test_unix_sockets_carry_frames_too(tmp_path: Path) -> None:
    async def main() -> None:
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(tmp_path / "host.sock"))
        server = HostServer(ScriptedEngine(), [sock])
        await server.start()
        client = await dial(str(tmp_path / "host.sock"), hello(), LIMIT_S)
        waiter = Waits()
        client.call(Asked(b"over a file").call, 1, 1000, waiter)
        assert (await waiter.told).body == b"over a file"
        client.close("done")
        await server.close()

    run(main())
