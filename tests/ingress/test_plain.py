"""The fast path's reading: sound (never different from httptools), and remembered within bounds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from uvicorn.config import Config
from uvicorn.server import ServerState

from kubeactor.call import CLIENT, DAY
from kubeactor.ingress import plain
from kubeactor.ingress.app import make_app
from kubeactor.ingress.plain import REQUEST, PlainHeads, plain_target
from kubeactor.ingress.protocol import FastCall, Listener
from kubeactor.ingress.state import Ingress


def test_a_plain_head_is_read_and_remembered() -> None:
    heads = PlainHeads()
    block = b"Host: x\r\nContent-Length: 7\r\nkubeactor-timeout: 2.5\r\n"
    assert heads.read(block) == (None, 2.5, 7)
    assert heads.read(block) is heads.read(block)
    assert heads.read(b"") == (None, 60.0, None)


@pytest.mark.parametrize("at", range(3))
def test_a_key_is_found_anywhere_and_is_not_remembered(at: int) -> None:
    heads = PlainHeads()
    lines = [b"Host: x\r\n", b"Content-Length: 7\r\n"]
    for number in range(50):
        block = b"".join([*lines[:at], b"Idempotency-Key: k%d\r\n" % number, *lines[at:]])
        assert heads.read(block) == (b"k%d" % number, 60.0, 7)
    assert heads.read(b"Host: x\r\nIDEMPOTENCY-KEY: a b \r\n") == (b"a b", 60.0, None)
    assert len(heads._memo) == 1


def test_what_is_remembered_is_bounded() -> None:
    heads = PlainHeads()
    for number in range(3 * plain.MEMO_HEADS):
        heads.read(b"X: %d\r\n" % number)
    heads.read(b"X: %b\r\n" % (b"y" * plain.MEMO_HEAD_BYTES))
    assert len(heads._memo) <= plain.MEMO_HEADS
    assert all(len(block) <= plain.MEMO_HEAD_BYTES for block in heads._memo)


@pytest.mark.parametrize(
    "line",
    [
        b"Transfer-Encoding: chunked",
        b"Expect: 100-continue",
        b"Upgrade: h2c",
        b"Connection: close",
        b"Connection: x",
        b"Proxy-Connection: keep-alive",
        b"Content-Length: 1\r\nContent-Length: 1",
        b"Content-Length: +1",
        b"Content-Length: 4194305",
        b"X : y",
        b" folded",
        b": y",
        b"X",
        b"X: \x00",
        b"X: \xe9",
        b"X: y\rz",
        b"X: y\nz",
        b"Idempotency-Key: a\r\nidempotency-key: b",
        b"Idempotency-Key: ",
        b"Idempotency-Key: " + b"k" * 257,
        b"Kubeactor-Timeout: 0",
    ],
)
def test_what_is_not_plain_is_left_to_httptools(line: bytes) -> None:
    assert PlainHeads().read(b"Host: x\r\n" + line + b"\r\n") is None


@pytest.mark.parametrize("path", [b"actors/A/%zz/m", b"actors/A/%ff/m", b"ids/A/zz/m", b"actors/A/a/fetch"])
def test_a_target_that_needs_an_answer_of_its_own_is_left_too(path: bytes) -> None:
    match = REQUEST.match(b"POST /v1/%b HTTP/1.1\r\n" % path)
    assert match is not None
    assert plain_target(match) is None


NAMES = [b"a", b"..", b"%2F", b"+1", b"%C3%A9", b"(a)"]
ODD_NAMES = [b"%zz", b"a%00", b"x" * 1025, b"a|b", b"\xe9", b"", b"0" * 32, b"a/b"]
HEADERS = [b"Host: x", b"X: y", b"Connection: keep-alive", b"Idempotency-Key: k", b"Kubeactor-Timeout: 5", b"X:"]
ODD = b"""Content-Length: 02|Content-Length: 2, 2|Connection: close|Connection: keep-alive, close|Upgrade: h2c
X : y|Connection: Upgrade|Idempotency-Key:  k  |idempotency-key:\tk|IDEMPOTENCY-KEY: j|kubeactor-timeout: 0
X: \xe9|X: a\tb| fold|Idempotency-Key: k k|Proxy-Connection: close|Keep-Alive: 5|X: \x7f|Content-Length:|:x
Content-Length: 2\rX: y|Expect: nothing|Expect: 100-continue|Trailer: x|TE: trailers
Transfer-Encoding: chunked|Transfer-Encoding: identity|X: y\r\n\r\n|content-length: 1 |Content-Length: 0x1
Content_Length: 5|\xe9: x|X: \x00|Connection:|\r|Content-Length: 1"""
ODD_HEADERS = [line for part in ODD.split(b"\n") for line in part.split(b"|")]


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A call, in half of the cases with one or two things about it that are odd."""
    odd = draw(st.sets(st.sampled_from(["name", "target", "version", "header", "length", "insert"]), max_size=2))
    odd = odd if draw(st.booleans()) else set()
    body = draw(st.sampled_from([b"", b"[]", b"[1, 2]"]))
    name = draw(st.sampled_from(ODD_NAMES if "name" in odd else NAMES))
    method = draw(st.sampled_from([b"echo", b"busy", b"later", b"nope"]))
    kind, tail, verb = b"actors", b"", b"POST"
    if "target" in odd:
        kind = draw(st.sampled_from([b"ids", b"actor", b"actors"]))
        tail = draw(st.sampled_from([b"?q=1", b"#f", b"/", b";p", b"/fetch"]))
        verb = draw(st.sampled_from([b"POST", b"GET", b"post", b" POST", b"\r\nPOST"]))
    version = draw(
        st.sampled_from([b" HTTP/1.0\r\n", b"  HTTP/1.1\r\n", b" HTTP/1.1\n", b"\r\n"])
        if "version" in odd
        else st.just(b" HTTP/1.1\r\n")
    )
    headers = draw(st.lists(st.sampled_from(HEADERS), max_size=3, unique=True))
    length = len(body) + (draw(st.sampled_from([-1, 1, 5])) if "length" in odd else 0)
    headers.append(b"Content-Length: %d" % length)
    if "header" in odd:
        headers.insert(draw(st.integers(0, len(headers))), draw(st.sampled_from(ODD_HEADERS)))
    text = b"%b /v1/%b/ACCOUNT/%b/%b%b%b" % (verb, kind, name, method, tail, version)
    text += b"".join(header + b"\r\n" for header in headers) + b"\r\n" + body
    if "insert" in odd:
        at = draw(st.integers(0, len(text)))
        text = (
            text[:at]
            + draw(st.sampled_from([b" ", b"\r", b"\n", b"\x00", b"\xff", b"\t", b":", b"GET / HTTP/1.1\r\n\r\n"]))
            + text[at:]
        )
    return text


STREAMS = st.lists(requests(), min_size=1, max_size=4).map(b"".join)
CUTS = st.one_of(st.just([]), st.lists(st.integers(0, 600), max_size=3))


class Transport(asyncio.Transport):
    """Keeps what is written; the client's end is driven by the test."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.closing = False
        self.paused = False

    def write(self, data: Any) -> None:
        self.written += data

    def can_write_eof(self) -> bool:
        return False

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


class Side:
    """One of the two ways to read a request, on connections without a network: nothing depends on time."""

    def __init__(self, *, fast: bool, script: Any) -> None:
        self.script = script
        ingress = Ingress(script, {"ACCOUNT"})
        self.listener = Listener(ingress, fast=fast)
        self.config = Config(make_app(ingress), ws="none", lifespan="off", log_config=None, access_log=False)
        self.config.load()

    async def converse(self, text: bytes, cuts: list[int]) -> tuple[list[Any], list[Any]]:
        """What is said to those bytes, and what the dispatcher saw of them."""
        self.script.calls.clear()
        state = ServerState()
        transport = Transport()
        connection = self.listener.protocol(config=self.config, server_state=state, app_state={})
        connection.connection_made(transport)
        ends = sorted({min(cut, len(text)) for cut in cuts} | {len(text)})
        for start, end in zip([0, *ends], ends, strict=False):
            await self._settle(lambda: not transport.paused)
            if not transport.closing:
                connection.data_received(text[start:end])
        await self._settle(lambda: False)
        transport.closing = True
        connection.connection_lost(None)
        while state.tasks:
            await asyncio.sleep(0)
        seen = [
            (
                c.binding,
                c.identity,
                c.method,
                c.body,
                c.shard,
                c.bucket == DAY,
                c.id.key if c.id.kind == CLIENT else None,
            )
            for c in self.script.calls
        ]
        return split_answers(bytes(transport.written)), seen

    async def _settle(self, enough: Callable[[], bool]) -> None:
        for _ in range(100):
            if enough():
                break
            await asyncio.sleep(0)


def split_answers(text: bytes) -> list[Any]:
    answers = []
    while text:
        head, _, text = text.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        fields = dict(line.split(b": ", 1) for line in lines[1:])
        length = int(fields.get(b"content-length", 0))
        body, text = text[:length], text[length:]
        for varying in (b"date", b"kubeactor-request-id"):
            fields.pop(varying, None)
        if fields.get(b"content-type") == b"application/problem+json":
            document = json.loads(body)
            document.pop("request_id")
            body = json.dumps(document).encode()
        answers.append((lines[0], fields, body))
    return answers


def test_both_paths_read_any_bytes_the_same(script: Callable[[], Any]) -> None:
    fast, slow = Side(fast=True, script=script()), Side(fast=False, script=script())
    taken = 0

    @settings(max_examples=1000, suppress_health_check=list(HealthCheck))
    @given(text=STREAMS, cuts=CUTS)
    @example(
        b"POST /v1/actors/ACCOUNT/a/echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n[]", []
    )
    @example(
        b"POST /v1/actors/ACCOUNT/a/later HTTP/1.1\r\n\r\n"
        + b"POST /v1/actors/ACCOUNT/a/echo HTTP/1.1\r\nContent-Length: 2\r\n\r\n[]",
        [112],
    )
    def same(text: bytes, cuts: list[int]) -> None:
        nonlocal taken
        one = runner.run(fast.converse(text, cuts))
        taken += any(isinstance(call, FastCall) for call in fast.script.calls)
        assert one == runner.run(slow.converse(text, cuts))

    with asyncio.Runner() as runner:
        same()
        runner.get_loop().call_soon(fast.listener.abort)
        runner.get_loop().call_soon(slow.listener.abort)
        runner.run(asyncio.sleep(0))
    assert taken > 150, "the test must reach the fast path to mean anything"
