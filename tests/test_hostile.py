"""Hostile names and hostile input, against the real commands: the documented error, and the next request works."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from tests.harness.dev import BANK, free_port
from tests.harness.program import Program, running

NAMES = [
    "a/b",
    ".",
    "..",
    "a.b",
    "+15551234",
    "a|b@c",
    "%2F",
    "?x#y",
    " a  b ",
    "🙂👩‍👩‍👧",
    "x" * 1024,
    "é",  # one character, and the same with a combining accent: no normalisation
    "e\u0301",
    "__class__",
    "a%2Fb",
    "a\\b",
    "a\nb",
    "fetch",
]
ESCAPED = {
    "1025 bytes": "x" * 1025,
    "1025 bytes of many": "%C3%A9" * 512 + "x",
    "NUL": "a%00b",
    "only NUL": "%00",
    "no UTF-8": "a%FFb",
    "an overlong slash": "%C0%AF",
    "a lone surrogate": "%ED%A0%80",
    "a cut character": "%F0%9F%99",
    "half an escape": "a%2",
    "no escape": "a%zz",
    "no name": "",
}


@pytest.fixture(scope="module", params=["embedded", "apart"])
def bank(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    yield from _served(request.param, tmp_path_factory.mktemp("bank"), "bank:Account", BANK, "bank:app")


@pytest.fixture(scope="module", params=["embedded", "apart"])
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    yield from _served(request.param, tmp_path_factory.mktemp("lab"), "lab:Lab", Path(__file__).parent / "harness")


def _served(mode: str, folder: Path, actors: str, code: Path, *door: str) -> Iterator[Program]:
    tail = ["--data", str(folder / "data"), *(("--front-door", *door) if door else ())]
    with ExitStack() as stack:
        if mode == "apart":
            frames = str(free_port())
            command = ["host", actors, "--port", frames, *tail]
            stack.enter_context(running(folder / "host.log", *command, folder=code))
            command = ["ingress", actors, "--port", "{port}", "--host", f"host-0=127.0.0.1:{frames}", *tail]
        else:
            command = ["dev", actors, "--port", "{port}", *tail]
        program = stack.enter_context(running(folder / "log", *command, folder=code))
        yield program.ready()
        assert program.stop()[0] == 0
        assert "Traceback" not in program.output, program.output[-3000:]


def test_each_name_keeps_its_own_balance(bank: Program) -> None:
    with Wire(bank) as wire:
        for amount, name in enumerate(NAMES, 1):
            path = f"/v1/actors/ACCOUNT/{quote(name, safe='')}"
            assert wire.ask(request(f"{path}/deposit", b'{"amount": %d}' % amount)) == (200, amount), name
        for amount, name in enumerate(NAMES, 1):
            path = f"/v1/actors/ACCOUNT/{quote(name, safe='')}"
            assert wire.ask(request(f"{path}/balance")) == (200, amount), name


def test_a_name_may_be_escaped_in_any_way(bank: Program) -> None:
    for path in ("/v1/actors/ACCOUNT/escaped", "/v1/actors/ACCOUNT/%65scaped", "/v1/actors/ACCOUNT/%65%73caped"):
        bank.http.post(f"{path}/deposit", json=[1])
    assert bank.http.post("/v1/actors/ACCOUNT/escaped/balance").json() == 3


@pytest.mark.parametrize("what", ESCAPED)
def test_a_name_that_cannot_be_is_a_400(bank: Program, what: str) -> None:
    answer = raw(bank, request(f"/v1/actors/ACCOUNT/{ESCAPED[what]}/balance"))
    assert answer[0] == 400, answer
    assert answer[1]["name"] == "ActorArgumentError"
    works(bank, "/v1/actors/ACCOUNT/alice/balance")


@pytest.mark.parametrize("what", [what for what, name in ESCAPED.items() if name])
def test_a_name_that_cannot_be_is_a_400_at_the_front_door_too(bank: Program, what: str) -> None:
    status, problem = raw(bank, request(f"/accounts/{ESCAPED[what]}/balance", method="GET"))
    assert (status, problem["status"]) == (400, 400)
    assert raw(bank, request(f"/{ESCAPED[what]}", b'{"amount": 1}'))[0] == 400
    works(bank, "/v1/actors/ACCOUNT/alice/balance")


def test_at_the_front_door_each_name_keeps_its_own_balance_too(bank: Program) -> None:
    names = [f"{name} here" for name in NAMES if "/" not in name and len(name) < 1000]  # its routes take no slash
    for amount, name in enumerate(names, 1):
        path = f"/accounts/{quote(name, safe='')}"
        there = {"account": name, "balance": amount}
        assert raw(bank, request(f"{path}/deposit", b'{"amount": %d}' % amount)) == (200, there), name
    for amount, name in enumerate(names, 1):
        answer = raw(bank, request(f"/{quote(name, safe='')}", b'{"amount": %d}' % amount))
        assert answer == (200, {"ok": True, "balance": 0}), name


def test_dots_in_a_path_are_names_and_lead_nowhere(bank: Program) -> None:
    assert raw(bank, request("/v1/actors/ACCOUNT/../balance"))[0] == 200
    assert raw(bank, request("/v1/actors/ACCOUNT/./balance"))[0] == 200
    assert raw(bank, request("/v1/actors/../../readyz"))[1]["name"] == "ActorUnknownBindingError"


def request(path: str, body: bytes = b"", *headers: str, method: str = "POST") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: t", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Wire:
    """A connection on which a test sends what bytes it likes."""

    def __init__(self, program: Program) -> None:
        self.socket = socket.create_connection(("127.0.0.1", program.port), timeout=40.0)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self.socket.close()

    def ask(self, sent: bytes) -> tuple[int, Any]:
        self.socket.sendall(sent)
        return self.answer()

    def answer(self) -> tuple[int, Any]:
        """Status and JSON body of the next answer."""
        status = int(self._file.readline()[9:12] or 0)
        length = 0
        while (line := self._file.readline().lower()) not in (b"\r\n", b""):
            if line.startswith(b"content-length:"):
                length = int(line[15:])
        body = self._file.read(length)
        assert len(body) == length, "cut short"
        return status, json.loads(body) if body else None

    def rest(self) -> bytes:
        return self._file.read()


def raw(program: Program, sent: bytes) -> tuple[int, Any]:
    """The answer to these bytes on a connection of their own."""
    with Wire(program) as wire:
        return wire.ask(sent)


def works(program: Program, path: str) -> None:
    assert program.http.post(path).status_code == 200


CALLS: dict[str, tuple[str, bytes, int, str]] = {
    "unknown binding": ("NOBODY/a/add", b"", 404, "ActorUnknownBindingError"),
    "a binding in lower case": ("lab/a/add", b"", 404, "ActorUnknownBindingError"),
    "unknown method": ("LAB/a/ad", b"", 404, "ActorUnknownMethodError"),
    "_private": ("LAB/a/_private", b"", 404, "ActorUnknownMethodError"),
    "__class__": ("LAB/a/__class__", b"", 404, "ActorUnknownMethodError"),
    "__init__": ("LAB/a/__init__", b"", 404, "ActorUnknownMethodError"),
    "ctx": ("LAB/a/ctx", b"", 404, "ActorUnknownMethodError"),
    "env": ("LAB/a/env", b"", 404, "ActorUnknownMethodError"),
    "activate": ("LAB/a/activate", b"", 404, "ActorUnknownMethodError"),
    "alarm": ("LAB/a/alarm", b"{}", 404, "ActorUnknownMethodError"),
    "undelivered": ("LAB/a/undelivered", b"{}", 404, "ActorUnknownMethodError"),
    "a dotted method": ("LAB/a/ctx.storage.get", b'["count"]', 404, "ActorUnknownMethodError"),
    "a method with NUL": ("LAB/a/add%00", b"", 404, "ActorUnknownMethodError"),
    "internal": ("LAB/a/hidden", b"", 403, "ActorPrivateMethodError"),
    "a wrong argument name": ("LAB/a/add", b'{"amout": 1}', 400, "ActorArgumentError"),
    "self as an argument": ("LAB/a/add", b'{"self": 1}', 400, "ActorArgumentError"),
    "a wrong type": ("LAB/a/add", b'{"amount": "1"}', 400, "ActorArgumentError"),
    "a fraction": ("LAB/a/add", b"[1.5]", 400, "ActorArgumentError"),
    "null": ("LAB/a/add", b"[null]", 400, "ActorArgumentError"),
    "too many": ("LAB/a/add", b"[1, 2]", 400, "ActorArgumentError"),
    "too few": ("LAB/a/echo", b"[]", 400, "ActorArgumentError"),
    "none at all": ("LAB/a/echo", b"", 400, "ActorArgumentError"),
    "a bare value": ("LAB/a/add", b"1", 400, "ActorArgumentError"),
    "no JSON": ("LAB/a/add", b"{amount: 1}", 400, "ActorArgumentError"),
    "NaN": ("LAB/a/add", b"[NaN]", 400, "ActorArgumentError"),
    "JSON twice": ("LAB/a/add", b"[1][1]", 400, "ActorArgumentError"),
    "JSON cut short": ("LAB/a/add", b'{"amount": 1', 400, "ActorArgumentError"),
    "no UTF-8": ("LAB/a/echo", b'["\xff"]', 400, "ActorArgumentError"),
    "a lone surrogate": ("LAB/a/echo", b'["\\ud800"]', 400, "ActorArgumentError"),
    "deep lists": ("LAB/a/echo", b"[" * 100_000 + b"]" * 100_000, 400, "ActorArgumentError"),
    "deep objects": ("LAB/a/echo", b'{"value":' * 50_000 + b"1" + b"}" * 50_000, 400, "ActorArgumentError"),
    "a value of 2 MiB and 1": ("LAB/a/fill", b"[2097153]", 413, "StorageLimitError"),
    "a result above 4 MiB": ("LAB/a/large", b"[4194305]", 413, "BodyTooLargeError"),
}


@pytest.mark.parametrize("what", CALLS)
def test_a_bad_call_gets_its_error_and_the_next_one_works(lab: Program, what: str) -> None:
    path, body, status, name = CALLS[what]
    with Wire(lab) as wire:
        wire.socket.sendall(request(f"/v1/actors/{path}", body))
        answer = wire.answer()
        assert (answer[0], answer[1]["name"]) == (status, name), answer
        wire.socket.sendall(request("/v1/actors/LAB/next/count"))
        assert wire.answer() == (200, 0)


def test_the_largest_value_and_result_fit(lab: Program) -> None:
    assert lab.http.post("/v1/actors/LAB/a/fill", json=[2 * 1024 * 1024 - 16]).status_code == 200
    assert len(lab.http.post("/v1/actors/LAB/a/large", json=[4 * 1024 * 1024 - 2]).json()) == 4 * 1024 * 1024 - 2


def test_a_body_above_4_mib_is_refused_by_its_length(lab: Program) -> None:
    head = b"POST /v1/actors/LAB/a/echo HTTP/1.1\r\nHost: t\r\nContent-Length: 4194305\r\n\r\n"
    status, problem = raw(lab, head)
    assert (status, problem["name"]) == (413, "BodyTooLargeError")
    works(lab, "/v1/actors/LAB/a/count")


BROKEN = {
    "two lengths": b"POST /v1/actors/LAB/a/add HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n[1]",
    "the same length twice": b"POST /v1/actors/LAB/a/add HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n[1]",
    "a length and chunks": b"POST /v1/actors/LAB/a/add HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n3\r\n[1]\r\n0\r\n\r\n",
    "a length that is none": b"POST /v1/actors/LAB/a/add HTTP/1.1\r\nHost: t\r\nContent-Length: -3\r\n\r\n[1]",
    "a length with a sign": b"POST /v1/actors/LAB/a/add HTTP/1.1\r\nHost: t\r\nContent-Length: +3\r\n\r\n[1]",
    "no HTTP": b"debit alice 30\r\n\r\n",
    "a key twice": request("/v1/actors/LAB/a/add", b"[1]", "Idempotency-Key: a", "Idempotency-Key: b"),
    "an empty key": request("/v1/actors/LAB/a/add", b"[1]", "Idempotency-Key: "),
    "a key of 257 bytes": request("/v1/actors/LAB/a/add", b"[1]", f"Idempotency-Key: {'k' * 257}"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_request_is_a_400_and_adds_nothing(lab: Program, what: str) -> None:
    before = lab.http.post("/v1/actors/LAB/a/count").json()
    assert raw(lab, BROKEN[what])[0] == 400
    assert lab.http.post("/v1/actors/LAB/a/count").json() == before


def test_a_body_that_is_cut_short_adds_nothing(lab: Program) -> None:
    with Wire(lab) as wire:
        wire.socket.sendall(request("/v1/actors/LAB/cut/add", b"[1]")[:-1])
        wire.socket.shutdown(socket.SHUT_WR)
        assert wire.rest() == b""
    assert lab.http.post("/v1/actors/LAB/cut/count").json() == 0


def test_a_body_that_is_sent_twice_is_one_call_and_garbage(lab: Program) -> None:
    with Wire(lab) as wire:
        wire.socket.sendall(request("/v1/actors/LAB/twice/add", b"[1]") + b"[1]\r\n\r\n")
        assert wire.answer() == (200, 1)
        assert wire.answer()[0] == 400
    assert lab.http.post("/v1/actors/LAB/twice/count").json() == 1


def test_a_client_that_sends_byte_by_byte_is_served_and_delays_nobody(lab: Program) -> None:
    with Wire(lab) as wire:
        for byte in request("/v1/actors/LAB/slowly/add", b"[1]"):
            wire.socket.sendall(bytes([byte]))
            works(lab, "/v1/actors/LAB/a/count")
        assert wire.answer() == (200, 1)


def test_two_hundred_clients_that_send_nothing_delay_nobody(lab: Program) -> None:
    with ExitStack() as stack:
        for _ in range(200):
            idle = stack.enter_context(closing(socket.create_connection(("127.0.0.1", lab.port))))
            idle.sendall(b"POST /v1/actors/LAB/idle/add HTTP/1.1\r\nContent-Length: 3\r\n")
        works(lab, "/v1/actors/LAB/a/count")
    assert lab.http.post("/v1/actors/LAB/idle/count").json() == 0
