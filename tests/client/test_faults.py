"""A server, or something between, that misbehaves."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.client.app.till_api import Shop, TillIsShort
from tests.client.serving import Faulty, faulty, response
from tests.harness.dev import free_port

import kubeactor
from kubeactor.client import aio, connect, connect_sync, idempotency_key

Add = Callable[..., Awaitable[Any]]


async def _add_async(url: str, **options: Any) -> Any:
    async with connect(Shop, url, **options) as shop:
        return await shop.TILL.id_from_name("a").add(1)


async def _add_sync(url: str, **options: Any) -> Any:
    def add() -> Any:
        with connect_sync(Shop, url, **options) as shop:
            return shop.call(shop.env.TILL.id_from_name("a").add, 1)

    return await asyncio.to_thread(add)


@pytest.fixture(params=[_add_async, _add_sync], ids=["async", "sync"])
def add(request: pytest.FixtureRequest) -> Add:
    made: Add = request.param
    return made


def problem(error: kubeactor.ActorError, *headers: str) -> bytes:
    body = msgspec.json.encode(error.to_wire())
    return response(error.http_status(), body, "application/problem+json", *headers)


def outcome(add: Add, *replies: bytes | None, **options: Any) -> tuple[Any, Faulty]:
    """The result or error of one call, and the server that it was made to."""

    async def main() -> tuple[Any, Faulty]:
        async with faulty(*replies) as server:
            try:
                return await add(server.url, **options), server
            except kubeactor.ActorError as error:
                return error, server

    return asyncio.run(main())


def test_a_broken_connection_is_tried_again_under_the_same_key(add: Add) -> None:
    result, server = outcome(add, None, None, response(200, b"7"))
    assert result == 7
    assert len(server.heads) == 3
    assert len({head["idempotency-key"] for head in server.heads}) == 1


def test_a_given_key_is_kept_as_well(add: Add) -> None:
    with idempotency_key("order-17"):
        result, server = outcome(add, None, response(200, b"7"))
    assert result == 7
    assert [head["idempotency-key"] for head in server.heads] == ["order-17", "order-17"]


def test_an_answer_that_breaks_off_is_tried_again(add: Add) -> None:
    replies = [response(200, b"123456789")[:-8], response(200, b"7")]

    async def answer_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(replies.pop(0))
        writer.close()

    async def main() -> None:
        async with await asyncio.start_server(answer_and_close, "127.0.0.1", 0) as listening:
            assert await add(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}") == 7

    asyncio.run(main())
    assert not replies


def test_a_retryable_problem_is_tried_again_after_its_pause(add: Add) -> None:
    refused = problem(kubeactor.ActorOverloadedError("full"), "Retry-After: 0")
    result, server = outcome(add, refused, refused, response(200, b"7"))
    assert result == 7
    assert len({head["idempotency-key"] for head in server.heads}) == 1


def test_retry_after_beyond_the_deadline_is_the_end(add: Add) -> None:
    refused = problem(kubeactor.ActorShardUnavailableError("moving", retry_after_s=None), "Retry-After: 30")
    error, server = outcome(add, refused, timeout_s=5.0)
    assert type(error) is kubeactor.ActorShardUnavailableError
    assert error.retry_after_s == 30
    assert len(server.heads) == 1


def test_a_final_problem_is_not_tried_again(add: Add) -> None:
    error, server = outcome(add, problem(TillIsShort("short", left=1)))
    assert (type(error), error.left, len(server.heads)) == (TillIsShort, 1, 1)


def test_a_problem_whose_class_is_not_known_here_is_a_problem(add: Add) -> None:
    document = TillIsShort("short", left=1).to_wire() | {"name": "Unheard"}
    error, _ = outcome(add, response(409, msgspec.json.encode(document), "application/problem+json"))
    assert (type(error), error.detail) == (kubeactor.Problem, "short")


@pytest.mark.parametrize(
    ("reply", "kind", "started"),
    [
        (response(404, b"<html>", "text/html"), kubeactor.ActorError, "unknown"),
        (response(200, b"<html>", "text/html"), kubeactor.ActorError, "unknown"),
        (response(302, b"", "text/html", "location: http://127.0.0.1:1/"), kubeactor.ActorError, "unknown"),
        (response(401, b"", "text/plain"), kubeactor.ActorUnauthenticatedError, "no"),
        (response(413, b"", "text/plain"), kubeactor.BodyTooLargeError, "no"),
        (response(403, b"{}", "application/problem+json"), kubeactor.ActorError, "unknown"),
        (response(403, b"[1", "application/problem+json"), kubeactor.ActorError, "unknown"),
    ],
)
def test_what_kubeactor_never_answers_is_named(add: Add, reply: bytes, kind: type, started: str) -> None:
    error, server = outcome(add, reply)
    assert (type(error), error.started, len(server.heads)) == (kind, started, 1)
    assert "is that the address of its API?" in error.detail


def test_a_proxy_without_a_server_behind_it_is_tried_again(add: Add) -> None:
    bad, busy = response(502, b"bad", "text/html"), response(503, b"", "text/html", "Retry-After: 0")
    result, server = outcome(add, bad, busy, response(504, b"", "text/html"), response(200, b"7"))
    assert result == 7
    assert len({head["idempotency-key"] for head in server.heads}) == 1


def test_a_proxy_that_stays_without_a_server_is_named_at_the_deadline(add: Add) -> None:
    error, server = outcome(add, response(502, b"bad", "text/html"), timeout_s=0.4)
    assert (type(error), error.started) == (kubeactor.ActorShardUnavailableError, "unknown")
    assert len(server.heads) > 2


def test_an_answer_without_end_is_cut_off(add: Add) -> None:
    error, _ = outcome(add, response(200, b"9" * (4 * 1024 * 1024 + 1)))
    assert type(error) is kubeactor.BodyTooLargeError
    assert error.started == "unknown"


def test_nobody_listens_until_the_deadline(add: Add) -> None:
    with pytest.raises(kubeactor.ActorMethodTimeoutError, match=r"no answer within 0.4 s; .*ConnectError") as raised:
        asyncio.run(add(f"http://127.0.0.1:{free_port()}", timeout_s=0.4))  # type: ignore[arg-type]
    assert raised.value.started == "no"


def test_a_server_that_accepts_and_is_silent_is_given_up_at_the_deadline(add: Add) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(kubeactor.ActorMethodTimeoutError) as raised:
            asyncio.run(add(url, timeout_s=0.3))  # type: ignore[arg-type]
    assert raised.value.started == "unknown"


def test_the_token_and_a_path_in_front_go_with_each_call(add: Add) -> None:
    async def main() -> None:
        async with faulty(response(200, b"7")) as server:
            await add(f"{server.url}/bank/", token="secret")
            assert server.heads[0]["authorization"] == "Bearer secret"
            assert server.targets == ["/bank/v1/actors/TILL/a/add"]

    asyncio.run(main())


def test_nothing_is_taken_from_the_environment(add: Add, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    assert outcome(add, response(200, b"7"), timeout_s=3.0)[0] == 7


def test_a_client_bounds_its_calls_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aio, "CALLS", 2)

    async def main() -> None:
        async with faulty(response(200, b"7")) as server, connect(Shop, server.url) as shop:
            till = shop.TILL.id_from_name("a")
            results = await asyncio.gather(till.add(), till.add(), till.add(), return_exceptions=True)
            assert results[:2] == [7, 7]
            assert isinstance(results[2], kubeactor.ActorOverloadedError)
            assert await till.add() == 7

    asyncio.run(main())


def test_a_certificate_is_checked_and_a_wrong_one_is_told_at_once(
    add: Add, tmp_path: Path, require: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make = [require("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    make += ["-subj", "/CN=bank", "-addext", "subjectAltName=IP:127.0.0.1"]
    make += ["-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "certificate")]
    subprocess.run(make, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate", tmp_path / "key")

    async def main() -> None:
        async with faulty(response(200, b"7"), tls=context) as server:
            with pytest.raises(kubeactor.ActorError, match=r"https://127.0.0.1.*: self.signed certificate") as raised:
                await add(server.url)
            assert raised.value.started == "no"
            monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate"))
            assert await add(server.url) == 7

    asyncio.run(main())
