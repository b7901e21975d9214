"""Bodies and hostile bytes over real sockets, on the fast and on the slow path."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from kubeactor.limits import BODY_BYTES

ECHO = "/v1/actors/ACCOUNT/alice/echo"
HOLD = "/v1/actors/ACCOUNT/alice/hold"


def age(server: Any, seconds: float) -> None:
    """Let the sweep believe that so much time has passed."""

    def sweep() -> None:
        server.listener.sweep(time.monotonic() + seconds)
        server.listener.clock = time.monotonic()

    server.run(sweep)


@pytest.mark.parametrize("size", [0, 1, 65_537, BODY_BYTES])
def test_a_body_up_to_four_mib_arrives_whole(server: Any, size: int) -> None:
    body = random.Random(size).randbytes(size)
    assert server.call(ECHO, body).json()["body"].encode("latin-1") == body


@pytest.mark.parametrize("size", [BODY_BYTES + 1, 10**12])
def test_a_body_that_is_announced_too_large_is_refused_before_it_is_sent(server: Any, size: int) -> None:
    client = server.client().send(b"POST %b HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (ECHO.encode(), size))
    answer = client.answer()
    assert (answer.status, answer.problem) == (413, "BodyTooLargeError")


def test_a_too_large_body_is_thrown_away_and_the_next_request_works(server: Any) -> None:
    client = server.client()
    assert client.call(ECHO, b"x" * (BODY_BYTES + 1)).status == 413
    assert client.call(ECHO).status == 200


def test_a_chunked_body_is_read_and_bounded(server: Any) -> None:
    client = server.client()
    head = b"POST %b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" % ECHO.encode()
    assert client.send(head, b"2\r\n[3\r\n2\r\n0]\r\n0\r\n\r\n").answer().json()["body"] == "[30]"
    chunk = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
    assert client.send(head, chunk * 5, b"0\r\n\r\n").answer().problem == "BodyTooLargeError"
    assert client.call(ECHO).status == 200


def test_a_result_of_four_mib_arrives_whole(server: Any) -> None:
    assert len(server.call("/v1/actors/ACCOUNT/alice/large").body) == BODY_BYTES


def test_the_body_may_come_after_the_head_and_in_pieces(server: Any) -> None:
    client = server.client()
    whole = b"POST %b HTTP/1.1\r\nContent-Length: 4\r\n\r\n[30]" % ECHO.encode()
    for cut in (len(whole) - 4, len(whole) - 1, 5, 30):
        client.send(whole[:cut])
        # An answer on another connection shows that the server has read the first part.
        assert server.call(ECHO).status == 200
        assert client.send(whole[cut:]).answer().json()["body"] == "[30]"


def test_byte_by_byte_is_the_same_request(server: Any, request_bytes: Callable[..., bytes]) -> None:
    client = server.client()
    client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in request_bytes(ECHO, b"[30]", "Idempotency-Key: k"):
        client.send(bytes([byte]))
    assert client.answer().json()["body"] == "[30]"
    assert server.dispatcher.calls[0].id.key == b"k"


def test_100_continue_is_sent_when_the_body_is_wanted(server: Any) -> None:
    client = server.client()
    client.send(b"POST %b HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n" % ECHO.encode())
    assert client.file.readline() + client.file.readline() == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert client.send(b"[30]").answer().json()["body"] == "[30]"
    assert client.call(ECHO).status == 200


def test_a_refusal_instead_of_100_continue_ends_the_connection(server: Any) -> None:
    client = server.client()
    head = b"POST /v1/actors/NO/alice/echo HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
    answer = client.send(head).answer()
    assert (answer.status, answer.headers["connection"]) == (404, "close")
    assert client.ended()


# Malformed requests


@pytest.mark.parametrize(
    "text",
    [
        b"POST %b HTTP/1.1\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\n[30]",
        b"POST %b HTTP/1.1\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\n[30]x",
        b"POST %b HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST %b HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
        b"POST %b HTTP/1.1\r\nContent-Length: +4\r\n\r\n[30]",
        b"POST %b HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST %b HTTP/1.1\r\nContent-Length: 4,4\r\n\r\n[30]",
        b"POST %b HTTP/1.1\r\nContent-Length : 4\r\n\r\n[30]",
        b"POST %b HTTP/1.1\r\nX: a\r\n folded\r\nContent-Length: 4\r\n\r\n[30]",
        b"POST %b HTTP/1.1\r\nX: \x01\r\nContent-Length: 0\r\n\r\n",
        b"POST %b HTTP/1.1\nContent-Length: 0\n\n",
        b"POST %b HTTP/9.9\r\n\r\n",
        b"POST %b\x00 HTTP/1.1\r\n\r\n",
        b"POST %b\xc3\xa9 HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n%b",
        b"CONNECT actors:80 HTTP/1.1\r\nX: %b\r\n\r\n",
        b"\x16\x03\x01%b",
    ],
)
def test_a_malformed_request_is_a_400_and_the_end_of_the_connection(server: Any, text: bytes) -> None:
    client = server.client()
    answer = client.send(text % ECHO.encode()).answer()
    assert (answer.status, answer.problem, answer.headers["connection"]) == (400, "ActorArgumentError", "close")
    assert client.ended()
    assert not server.dispatcher.calls
    assert server.call(ECHO).status == 200


def test_much_garbage_gets_one_answer(server: Any) -> None:
    client = server.client().send(b"\x00" * 100_000)
    assert client.answer().status == 400
    assert client.ended()


def test_what_follows_a_malformed_request_is_thrown_away_and_its_connection_ends_soon(
    server: Any, request_bytes: Callable[..., bytes]
) -> None:
    client = server.client().send(b"\x00")
    assert client.answer().status == 400
    client.send(request_bytes(ECHO))
    age(server, 1)
    assert server.ingress.stats.connections == 1
    age(server, 3)
    assert client.ended()
    assert (server.ingress.stats.expired, server.dispatcher.calls) == (0, [])


def test_a_malformed_request_is_answered_after_those_before_it(
    server: Any, request_bytes: Callable[..., bytes]
) -> None:
    client = server.client().send(request_bytes(HOLD), request_bytes("/healthz", method="GET"), b"\x00")
    call = server.held()
    server.release(call)
    assert [client.answer().status for _ in range(3)] == [200, 200, 400]
    assert client.ended()


def test_a_malformed_chunk_of_a_request_in_the_queue_is_a_400_after_the_first_answer(serving: Any) -> None:
    server = serving(fast=False)
    head = b"POST %b HTTP/1.1\r\n" % HOLD.encode()
    client = server.client().send(head, b"\r\n", head, b"Transfer-Encoding: chunked\r\n\r\nzz\r\n")
    server.release(server.held())
    assert [client.answer().status for _ in range(2)] == [200, 400]
    assert client.ended()
    assert len(server.dispatcher.calls) == 1


def test_a_malformed_chunk_is_a_400(server: Any) -> None:
    client = server.client().send(b"POST %b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" % ECHO.encode())
    assert client.answer().status == 400
    assert client.ended()


def test_a_malformed_chunk_after_the_answer_just_ends_the_connection(server: Any) -> None:
    client = server.client().send(b"POST /v1/actors/NO/a/echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert client.answer().status == 404
    assert client.send(b"zz\r\n").ended()


@pytest.mark.parametrize("header", [b"X: " + b"y" * 65536, b"\r\n".join(b"X%d: y" % i for i in range(8000))])
def test_a_head_above_32_kib_is_a_431(server: Any, header: bytes) -> None:
    client = server.client().send(b"POST %b HTTP/1.1\r\n" % ECHO.encode(), header, b"\r\n\r\n")
    answer = client.answer()
    assert (answer.status, answer.problem) == (431, "ActorArgumentError")
    assert client.ended()


def test_an_endless_path_is_a_431(server: Any) -> None:
    assert server.client().send(b"GET /" + b"x" * 65536).answer().status == 431


def test_a_head_of_16_kib_is_served(server: Any) -> None:
    assert server.call(ECHO, b"", "X: " + "y" * 16384).status == 200


@pytest.mark.parametrize("path", [ECHO, "/elsewhere"])
def test_an_upgrade_is_ignored_and_the_body_stays_a_body(server: Any, path: str) -> None:
    client = server.client()
    upgrade = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAA")
    hidden = b"GET /healthz HTTP/1.1\r\n\r\n"
    answer = client.call(path, hidden, *upgrade)
    assert answer.status in (200, 404)
    if path == ECHO:
        assert answer.json()["body"].encode() == hidden
    assert client.call(ECHO, b"[1]").json()["body"] == "[1]"
    assert client.call("/healthz", b"", "Connection: Upgrade", "Upgrade: websocket", method="GET").body == b"ok\n"
    assert client.call(ECHO).status == 200
