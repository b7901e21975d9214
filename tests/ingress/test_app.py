"""The ASGI app behind a real server: health, metrics, front doors."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from kubeactor.actor import Actor, ActorType
from kubeactor.call import CODEC, DAY, DERIVED, Call
from kubeactor.env import Binding
from kubeactor.errors import (
    ActorError,
    ActorFencedError,
    ActorOverloadedError,
    ActorReentrancyError,
    ActorShardUnavailableError,
)
from kubeactor.metrics import make_registry
from kubeactor.scope import SCOPE

ECHO = "/v1/actors/ACCOUNT/alice/echo"


class Account(Actor):
    async def debit(self, body: bytes) -> int:
        raise NotImplementedError


TYPE = ActorType("ACCOUNT", Account)
ACCOUNT: Binding[Account] = Binding(TYPE, lambda: pytest.fail("the call was made outside of its request"))


async def debit(body: bytes = b"[30]") -> int:
    return await ACCOUNT.id_from_name("alice").debit(body)


def bank(script: Any, outcomes: list[ActorError] | None = None) -> Any:
    """A dispatcher whose `debit` ends with those errors, then with 70."""

    class Bank(script):  # type: ignore[misc]
        def do_debit(self, call: Call) -> None:
            result = TYPE.methods["debit"].arguments.encode_result(70, call.format)
            call.reply(outcomes.pop(0) if outcomes else result)

    return Bank()


async def pay(request: Request, env: Any) -> Response:
    body = await request.body()
    return JSONResponse({"env": env, "balance": await debit(body), "path": request.url.path})


# Health and metrics


def test_healthz_and_readyz(serving: Any) -> None:
    reasons: list[str | None] = ["the volume is being opened", None]
    server = serving(ready=lambda: reasons.pop(0))
    assert server.call("/healthz", method="GET").body == b"ok\n"
    first, second = (server.call("/readyz", method="GET") for _ in range(2))
    assert (first.status, first.body) == (503, b"the volume is being opened\n")
    assert (second.status, second.body) == (200, b"ready\n")
    assert server.call("/healthz", method="DELETE").status == 405
    head = server.client().send(b"HEAD /healthz HTTP/1.1\r\nConnection: close\r\n\r\n").file.read()
    assert head.startswith(b"HTTP/1.1 200 ")
    assert head.endswith(b"\r\n\r\n")


def test_metrics_come_in_the_format_asked_for(serving: Any) -> None:
    server = serving(metrics=None)
    assert server.call("/metrics", method="GET").status == 404
    registry = make_registry(ingress=server.ingress.stats, process=False)
    server = serving(metrics=registry)
    plain = server.call("/metrics", method="GET")
    assert plain.headers["content-type"].startswith("text/plain; version=")
    assert b'kubeactor_ingress_requests_total{code="404"} 1.0' in plain.body
    more = server.call("/metrics", b"", "Accept: application/openmetrics-text; version=1.0.0", method="GET")
    assert more.headers["content-type"].startswith("application/openmetrics-text")
    assert more.body.endswith(b"# EOF\n")


def test_every_answer_is_counted(server: Any) -> None:
    for path in (ECHO, ECHO, "/healthz", "/nowhere", "/v1/actors/ACCOUNT/a/busy", "/v1/actors/NO/a/echo"):
        server.call(path)
    server.client().send(b"\x00").answer()
    stats = server.ingress.stats
    codes = dict(stats.codes)
    codes[200] = codes.get(200, 0) + stats.ok
    assert codes == {200: 2, 404: 2, 405: 1, 503: 1, 400: 1}
    assert sum(stats.latency) == 3


def test_no_front_door_is_a_404_problem(serving: Any) -> None:
    server = serving()
    assert server.call("/", method="GET").problem == "ActorUnknownMethodError"


def test_the_public_port_of_a_front_door_has_no_api(serving: Any, script: Any) -> None:
    server = serving(bank(script), front_door=pay, serve_api=False, fast=False, metrics=make_registry(process=False))
    answer = server.call(ECHO)
    assert (answer.status, answer.problem) == (404, "ActorUnknownMethodError")
    assert not server.dispatcher.calls
    assert server.call("/healthz", method="GET").status == 200
    assert server.call("/metrics").json()["path"] == "/metrics"


def test_front_door_and_api_may_share_a_port(serving: Any, script: Any) -> None:
    server = serving(bank(script), front_door=pay, env="the env")
    assert server.call(ECHO).status == 200
    assert server.call("/alice", b"[30]").json() == {"env": "the env", "balance": 70, "path": "/alice"}


# Calls made by a front door


def test_calls_of_a_front_door_get_derived_ids_under_the_client_s_key(serving: Any, script: Any) -> None:
    async def twice(request: Request, env: Any) -> Response:
        await debit()
        await debit()
        return Response()

    server = serving(bank(script), front_door=twice)
    for _ in range(2):
        server.call("/alice", b"", "Idempotency-Key: order-7", "Kubeactor-Timeout: 5")
    server.call("/bob", b"", "Idempotency-Key: order-7")
    server.call("/alice")
    calls = server.dispatcher.calls
    ids = [call.id.key for call in calls]
    assert ids[:2] == ids[2:4]
    assert len(set(ids)) == 6
    assert {call.id.kind for call in calls} == {DERIVED}
    assert [call.bucket == DAY for call in calls] == [True] * 6 + [False] * 2
    assert all(call.internal and call.format == CODEC and call.scope is not None for call in calls)
    assert calls[1].deadline == calls[0].deadline < calls[-1].deadline - 50


def test_code_that_outlives_its_request_is_fenced(serving: Any, script: Any) -> None:
    kept: list[Any] = []

    async def leave(request: Request, env: Any) -> Response:
        kept.append(SCOPE.get())
        return Response()

    server = serving(bank(script), front_door=leave)
    assert server.call("/").status == 200
    with pytest.raises(ActorFencedError):
        kept[0].fence()


def test_a_call_that_nobody_awaited_is_named_in_the_log(
    serving: Any, script: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def forget(request: Request, env: Any) -> Response:
        ACCOUNT.id_from_name("alice").debit(b"")  # type: ignore[unused-coroutine]
        return Response()

    server = serving(bank(script), front_door=forget)
    assert server.call("/").status == 200
    server.end()
    said = next(r.getMessage() for r in caplog.records if "never awaited" in r.getMessage())
    assert "test_app.py" in said
    assert said.endswith("was never awaited: write `await`")
    assert not server.dispatcher.calls


@pytest.mark.parametrize("headers", [["Idempotency-Key:"], ["Kubeactor-Timeout: 0"], ["Kubeactor-Timeout: 301"]])
def test_a_front_door_s_headers_are_checked_before_it_runs(serving: Any, headers: list[str]) -> None:
    server = serving(front_door=pay)
    assert server.call("/", b"", *headers).problem == "ActorArgumentError"


@pytest.mark.parametrize("path", ["/%FF", "/a%C0%AFb", "/%ED%A0%80", "/%F0%9F%99", "/a%zz", "/a%2"])
def test_a_path_that_would_be_decoded_to_another_name_does_not_reach_the_front_door(serving: Any, path: str) -> None:
    async def echo(request: Request, env: Any) -> Response:
        return JSONResponse(request.url.path)

    server = serving(front_door=echo)
    answer = server.call(path)
    assert (answer.status, answer.problem) == (400, "ActorArgumentError")
    assert server.call("/%EF%BF%BD%25").json() == "/\ufffd%"


def test_a_front_door_s_body_is_bounded(serving: Any) -> None:
    async def measure(request: Request, env: Any) -> Response:
        return JSONResponse(len(await request.body()))

    server = serving(front_door=measure)
    large = 4 * 1024 * 1024
    client = server.client().send(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (large + 1))
    assert client.answer().problem == "BodyTooLargeError"
    client = server.client().send(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
    client.send((b"100000\r\n" + b"x" * 0x100000 + b"\r\n") * 5, b"0\r\n\r\n")
    assert client.answer().problem == "BodyTooLargeError"
    assert server.call("/", b"x" * large).json() == large


def test_a_client_that_leaves_a_front_door_in_mid_body_is_nobody_s_error(
    serving: Any, caplog: pytest.LogCaptureFixture
) -> None:
    server = serving(front_door=pay)
    client = server.client().send(b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n[")
    server.call("/healthz", method="GET")
    client.close()
    server.end()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_flood_behind_a_front_door_that_polls_for_a_disconnect_is_cut_off(serving: Any) -> None:
    async def poll(request: Request, env: Any) -> Response:
        while not await request.is_disconnected():
            pass
        return Response()

    client = serving(front_door=poll).client()
    with pytest.raises(ConnectionError):
        client.send(b"GET / HTTP/1.1\r\n\r\n" * 1_000_000)


# Errors of a front door


def asgi(endpoint: Callable[[Request], Any], **options: Any) -> Starlette:
    return Starlette(routes=[Route("/{path:path}", endpoint, methods=["GET", "POST"])], **options)


async def through(request: Request) -> Response:
    return JSONResponse(await debit(await request.body()))


DOORS = {
    "fetch": lambda: pay,
    "asgi": lambda: asgi(through),
    "debug": lambda: asgi(through, debug=True),
    "middleware": lambda: _with_middleware(asgi(through)),
}


def _with_middleware(app: Starlette) -> Starlette:
    class Passing(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Any) -> Response:
            response: Response = await call_next(request)
            return response

    app.add_middleware(Passing)
    return app


@pytest.mark.parametrize("door", DOORS)
def test_an_actor_error_that_is_not_caught_becomes_the_ingress_s_answer(serving: Any, script: Any, door: str) -> None:
    error = ActorOverloadedError("full", instance="ACCOUNT/alice")
    server = serving(bank(script, [error]), front_door=DOORS[door]())
    client = server.client()
    answer = client.call("/alice", b"[30]")
    assert (answer.status, answer.problem, answer.headers["retry-after"]) == (503, "ActorOverloadedError", "1")
    assert answer.json()["instance"] == "ACCOUNT/alice"
    assert client.call("/alice", b"[30]").status == 200


def test_the_one_error_of_a_task_group_is_the_answer(serving: Any, script: Any) -> None:
    async def together(request: Request, env: Any) -> Response:
        async with asyncio.TaskGroup() as group:
            group.create_task(debit())
        return Response()

    server = serving(bank(script, [ActorOverloadedError("full")]), front_door=together)
    assert server.call("/").problem == "ActorOverloadedError"
    assert server.call("/").status == 200


@pytest.mark.parametrize("door", DOORS)
def test_a_broken_cycle_runs_the_front_door_again_with_the_same_ids(serving: Any, script: Any, door: str) -> None:
    cycle = ActorReentrancyError("a circle", retryable=True)
    server = serving(bank(script, [cycle, cycle]), front_door=DOORS[door]())
    answer = server.call("/alice", b"[30]")
    assert answer.status == 200
    calls = server.dispatcher.calls
    assert len(calls) == 3
    assert {TYPE.methods["debit"].arguments.decode(call.body, CODEC)[0] for call in calls} == {(b"[30]",)}
    assert len({call.id for call in calls}) == 1
    assert [call.repeat for call in calls] == [False, True, True]
    assert server.ingress.stats.cycles == 2


def test_a_broken_cycle_is_the_answer_when_the_time_is_over(serving: Any, script: Any) -> None:
    cycle = ActorReentrancyError("a circle", retryable=True)
    server = serving(bank(script, [cycle] * 100), front_door=pay)
    assert server.call("/alice", b"", "Kubeactor-Timeout: 0.03").problem == "ActorReentrancyError"


@pytest.mark.parametrize("dev", [False, True])
def test_any_other_exception_is_a_500_without_internals_and_a_traceback_in_the_log(
    serving: Any, caplog: pytest.LogCaptureFixture, dev: bool
) -> None:
    async def fail(request: Request) -> Response:
        raise ValueError("the password is 1234")

    server = serving(front_door=asgi(fail), dev=dev)
    answer = server.call("/")
    assert (answer.status, answer.problem, answer.json()["cause"]) == (500, "ActorMethodError", "ValueError")
    assert (b"1234" in answer.body) == dev
    [record] = [r for r in caplog.records if r.name == "kubeactor.ingress"]
    assert record.exc_info is not None
    assert "1234" in str(record.exc_info[1])


def test_a_500_that_the_front_door_means_goes_out(serving: Any) -> None:
    async def broken(request: Request) -> Response:
        if request.url.path == "/stream":
            return StreamingResponse(iter([b"a", b"b"]), 500, headers={"content-length": "2"})
        return PlainTextResponse("sorry", 500, background=BackgroundTask(lambda: None))

    client = serving(front_door=asgi(broken)).client()
    assert [(a.status, a.body) for a in (client.call("/"), client.call("/stream"))] == [(500, b"sorry"), (500, b"ab")]


def test_an_exception_after_the_first_byte_breaks_the_connection(serving: Any) -> None:
    async def half(request: Request) -> Response:
        async def parts() -> AsyncIterator[bytes]:
            yield b"half"
            raise ActorShardUnavailableError("gone")

        return StreamingResponse(parts(), headers={"content-length": "8"})

    answer = serving(front_door=asgi(half)).client().call("/")
    assert (answer.status, answer.body) == (200, b"half")


def test_a_fetch_may_raise_an_http_exception_and_must_return_a_response(serving: Any) -> None:
    async def fetch(request: Request, env: Any) -> Any:
        if request.url.path == "/teapot":
            raise HTTPException(418, "short and stout")
        return {"balance": 70}

    server = serving(front_door=fetch, dev=True)
    assert server.call("/teapot").status == 418
    answer = server.call("/")
    assert (answer.problem, answer.json()["cause"]) == ("ActorMethodError", "TypeError")
    assert "starlette Response, not dict: write `return JSONResponse(...)`" in answer.json()["detail"]


# The front door's lifespan


def test_a_front_door_s_lifespan_runs_and_its_state_stays(serving: Any) -> None:
    events = []

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, str]]:
        events.append("start")
        yield {"database": "open"}
        events.append("stop")

    async def show(request: Request) -> Response:
        return JSONResponse([request.state.database, request.scope["state"]["kubeactor.env"]])

    server = serving(front_door=asgi(show, lifespan=lifespan), env="the env")
    assert server.call("/").json() == ["open", "the env"]
    assert events == ["start"]
    server.end()
    assert events == ["start", "stop"]


def test_a_lifespan_that_fails_ends_the_server(serving: Any) -> None:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        raise OSError("no database")
        yield

    server = serving(front_door=asgi(through, lifespan=lifespan))
    server.thread.join(20)
    assert "lifespan" in str(server.failure)


def test_an_asgi_app_without_lifespan_is_served(serving: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await PlainTextResponse("hello")(scope, receive, send)

    assert serving(front_door=app).call("/").body == b"hello"
