"""The ASGI app of an ingress: health, metrics, actor calls that the fast path leaves, and the user's front door.

Answers of actor calls are the same bytes as the fast path's, apart from the date and the request id.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import unquote

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kubeactor import codec
from kubeactor.call import CODEC, Call
from kubeactor.errors import ActorError, ActorUnknownBindingError, ActorUnknownMethodError
from kubeactor.fetch import FETCH, packed_request
from kubeactor.ids import shard_of
from kubeactor.ingress.front_door import FrontDoor, check_length
from kubeactor.ingress.internal import PREFIX
from kubeactor.ingress.parked import parked_routes
from kubeactor.ingress.problem import Answer, send_answer
from kubeactor.ingress.requests import Conditions, Target, conditions_of, is_call_path, is_fetch_path, target_of
from kubeactor.ingress.state import Ingress
from kubeactor.nearest import did_you_mean
from kubeactor.parked import Keepers

__all__ = ["IngressApp", "make_app"]

logger = logging.getLogger("kubeactor.ingress")

_NOT_FOUND: Final = "nothing is served at this path"


def make_app(
    ingress: Ingress,
    *,
    front_door: Any = None,
    env: object = None,
    serve_api: bool = True,
    ready: Callable[[], str | None] = lambda: None,
    note: Callable[[], str] = lambda: "",
    keepers: Callable[[], Keepers | None] = lambda: None,
    metrics: CollectorRegistry | None = None,
    internal: Sequence[Route] | None = None,
) -> IngressApp:
    """The ASGI app of one port.

    Args:
        ingress: shared by all ports of the process.
        front_door: an ASGI app, `async def fetch(request, env)`, or None.
        env: what the front door gets as its `Env`.
        serve_api: whether `/v1` and `/metrics` are on this port; the public port of a front door has neither.
        note: lines that `/readyz` adds, such as why the worker before this one ended.
        ready: None, or why the process can't serve at the moment.
        keepers: who knows what is parked, for `/v1/parked`; None as long as nobody does.
        metrics: what `/metrics` shows.
        internal: routes below `/_internal/`, of a port that the outside can't reach; None on any other.
    """
    door = None if front_door is None else FrontDoor(front_door, ingress, env)
    routes = [Route("/healthz", _healthz), Route("/readyz", _Readiness(ready, note).respond)]
    if metrics is not None and (serve_api or internal is not None):
        routes.append(Route("/metrics", _Metrics(metrics).respond))
    if serve_api:
        routes += parked_routes(ingress, keepers)
    return IngressApp(ingress, Starlette(routes=[*routes, *(internal or ())]), door, serve_api=serve_api)


class IngressApp:
    """Decides by the path who answers."""

    def __init__(self, ingress: Ingress, service: Starlette, door: FrontDoor | None, *, serve_api: bool) -> None:
        self._ingress = ingress
        self._service = service
        self._paths = {route.path for route in service.routes if isinstance(route, Route)}
        self._internal = any(path.startswith(PREFIX) for path in self._paths)
        self._door = door
        self._calls = ActorCalls(ingress) if serve_api else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "lifespan":
            await (self._service if self._door is None else self._door.lifespan)(scope, receive, send)
        elif scope["type"] == "http":
            try:
                await self._respond(scope, receive, self._counted(send))
            except asyncio.CancelledError:
                logger.warning("%s %s was cut off by the end of the server", scope["method"], scope["path"])

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        if any(name == b"expect" for name, _ in scope["headers"]):
            receive, send = _closing_unless_read(receive, send)
        await self._app_of(scope["path"])(scope, receive, send)

    def _app_of(self, path: str) -> ASGIApp:
        if path in self._paths or (self._internal and path.startswith(PREFIX)):
            return self._service
        if path.startswith("/v1/"):
            return self._nothing if self._calls is None else self._calls
        return self._nothing if self._door is None else self._door

    async def _nothing(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send_answer(self._ingress.refuse(ActorUnknownMethodError(_NOT_FOUND)), send)

    def _counted(self, send: Send) -> Send:
        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._ingress.stats.count(message["status"])
            await send(message)

        return counted


class ActorCalls:
    """The slow path of `/v1`: whatever the fast path does not take, chunked bodies and refusals among it."""

    def __init__(self, ingress: Ingress) -> None:
        self._ingress = ingress

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        number = self._ingress.next_request()
        try:
            answer = await self._answer(scope, receive, number)
        except ClientDisconnect:
            return
        except ActorError as error:
            answer = self._ingress.refuse(error, number)
        await send_answer(answer, send)

    async def _answer(self, scope: Scope, receive: Receive, number: int) -> Answer:
        if is_fetch_path(scope["raw_path"]):
            return await self._fetch(scope, receive, number)
        if scope["method"] != "POST" and is_call_path(scope["raw_path"]):
            error = ActorUnknownMethodError("a method of an actor is called by POST")
            return self._ingress.refuse(error, number, status=405, allow="POST")
        target = self._target(scope)
        conditions = conditions_of(scope["headers"])
        body = await read_body(receive, conditions.length)
        call = self._call(target, conditions, number, body)
        return self._ingress.answer(await self._timed(call, number), number, call.shard, target.instance)

    async def _fetch(self, scope: Scope, receive: Receive, number: int) -> Answer:
        """Any HTTP method, forwarded to the instance's `fetch`, which sees the path behind `/fetch`."""
        target = self._target(scope)
        conditions = conditions_of(scope["headers"])
        check_length(conditions.length or 0)
        path = "/" + unquote(b"/".join(scope["raw_path"].split(b"/")[6:]).decode("latin-1"))
        request = await packed_request(Request(scope, receive), path)
        call = self._call(target._replace(method=FETCH), conditions, number, codec.encode([[request], {}]))
        call.format = CODEC
        call.internal = True
        outcome = await self._timed(call, number)
        if isinstance(outcome, ActorError):
            return self._ingress.answer(outcome, number, call.shard, target.instance)
        return self._ingress.response(codec.decode(outcome), number, call.shard)

    def _target(self, scope: Scope) -> Target:
        target = target_of(scope["raw_path"])
        if self._ingress.bindings is not None and target.binding not in self._ingress.bindings:
            near = did_you_mean(target.binding, self._ingress.bindings)
            raise ActorUnknownBindingError(f"no actor is bound under {target.binding!r}{near}")
        return target

    def _call(self, target: Target, conditions: Conditions, number: int, body: bytes) -> Call:
        root = self._ingress.root(number)
        call_id, bucket = self._ingress.call_id(root, conditions.key)
        return Call(
            *target,
            body,
            shard=shard_of(target.identity, self._ingress.dispatcher.shards),
            deadline=time.monotonic() + conditions.timeout_s,
            reply=_no_reply,
            id=call_id,
            bucket=bucket,
            root=root,
        )

    async def _timed(self, call: Call, number: int) -> bytes | ActorError:
        started = time.monotonic()
        outcome = await self._outcome(call, number)
        self._ingress.stats.took(time.monotonic() - started)
        return outcome

    async def _outcome(self, call: Call, number: int) -> bytes | ActorError:
        future: asyncio.Future[bytes | ActorError] = asyncio.get_running_loop().create_future()
        attempts = itertools.count()

        def reply(outcome: bytes | ActorError) -> None:
            if not isinstance(outcome, bytes) and self._ingress.repeat_later(call, outcome, number, next(attempts)):
                call.reply = reply
            elif not future.done():
                future.set_result(outcome)

        call.reply = reply
        self._ingress.dispatcher.submit(call)
        return await future


def _no_reply(outcome: bytes | ActorError) -> None:
    raise AssertionError("the call was replied to before it was submitted")


async def read_body(receive: Receive, length: int | None) -> bytes:
    """The whole body of a request.

    Raises:
        BodyTooLargeError: when it is, or is announced to be, above 4 MiB; at most that much is kept.
        ClientDisconnect: when the client goes before its end.
    """
    check_length(length or 0)
    parts: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        check_length(size)
        more = message.get("more_body", False)
    return b"".join(parts)


def _closing_unless_read(receive: Receive, send: Send) -> tuple[Receive, Send]:
    """For `Expect: 100-continue`: a response before the body was asked for ends the connection.

    The client need not send its body then, so no next request could be told from it (RFC 9110, 10.1.1).
    """
    asked = False

    async def receiving() -> Message:
        nonlocal asked
        asked = True
        return await receive()

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start" and not asked:
            message = {**message, "headers": [*message.get("headers", []), (b"connection", b"close")]}
        await send(message)

    return receiving, sending


async def _healthz(request: Request) -> Response:
    return PlainTextResponse("ok\n")


class _Readiness:
    """`/readyz`: 200, or 503 and the reason."""

    def __init__(self, ready: Callable[[], str | None], note: Callable[[], str]) -> None:
        self._ready = ready
        self._note = note

    async def respond(self, request: Request) -> Response:
        reason = self._ready()
        return PlainTextResponse(f"{reason or 'ready'}\n{self._note()}", 200 if reason is None else 503)


class _Metrics:
    """`/metrics`, as Prometheus text or OpenMetrics, whichever is asked for."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    async def respond(self, request: Request) -> Response:
        encoder, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encoder(self._registry), headers={"content-type": content_type})
