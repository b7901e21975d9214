"""The user's front door: an ASGI app, or `async def fetch(request, env)`, run with a request scope of its own.

What it raises and does not catch becomes a response here. Frameworks answer an exception with a 500 of their own and
then raise it again, so a 500 is held back until the app has returned.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from starlette.applications import Starlette
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as AsgiScope

from kubeactor.call import CLIENT, CallId
from kubeactor.env import STATE_KEY
from kubeactor.errors import ActorError, BodyTooLargeError
from kubeactor.ingress.problem import send_answer, unexpected
from kubeactor.ingress.requests import check_path, conditions_of
from kubeactor.ingress.state import Ingress, cycle_wait_s
from kubeactor.limits import BODY_BYTES
from kubeactor.scope import SCOPE, RequestScope

__all__ = ["FrontDoor", "check_length"]

NO_SHARD: Final = -1  # stands where the shard does in a call's token, so that no call has a front door's token

logger = logging.getLogger("kubeactor.ingress")


class FrontDoor:
    """Runs the front door for one request after another.

    Args:
        front_door: three positional parameters make it an ASGI app, two an `async def fetch(request, env)`.
        env: what `fetch` gets, and ASGI apps find under `kubeactor.env` in the scope's state.
    """

    def __init__(self, front_door: Any, ingress: Ingress, env: object) -> None:
        fetch = _is_fetch(front_door)
        self._app: ASGIApp = _fetch_app(front_door, env) if fetch else front_door
        self._lifespan: ASGIApp = Starlette() if fetch else front_door
        self._ingress = ingress
        self._env = env

    async def lifespan(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """The ASGI lifespan, which is the app's own."""
        scope.setdefault("state", {})[STATE_KEY] = self._env
        await self._lifespan(scope, receive, send)

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """ASGI, for one request."""
        number = self._ingress.next_request()
        exchange = _Exchange(receive, send)
        error = await self._answered(scope, exchange, number)
        if error is None or isinstance(error, ClientDisconnect):
            await exchange.flush()
        elif exchange.started:
            raise error  # uvicorn logs it and breaks the connection: the client must not take the half for the whole
        else:
            await send_answer(self._ingress.refuse(self._told(error, scope), number), send)

    def _told(self, error: Exception, scope: AsgiScope) -> ActorError:
        if isinstance(error, ActorError):
            return error
        logger.error("the front door failed at %s %s", scope["method"], scope["path"], exc_info=error)
        return unexpected(error, dev=self._ingress.dev)

    async def _answered(self, scope: AsgiScope, exchange: _Exchange, number: int) -> Exception | None:
        try:
            check_path(scope["raw_path"])
            conditions = conditions_of(scope["headers"])
            check_length(conditions.length or 0)
        except ActorError as error:
            return error
        root = self._ingress.root(number)
        call_id, bucket = self._ingress.call_id(root, conditions.key)
        parent = _parent(scope, call_id)
        deadline = time.monotonic() + conditions.timeout_s
        attempt = 0
        while True:
            request = RequestScope(
                self._ingress.dispatcher,
                parent=parent,
                bucket=bucket,
                deadline=deadline,
                root=root,
                repeat=attempt > 0,
            )
            failure = await self._run(scope, exchange, request)
            wait_s = cycle_wait_s(failure, attempt)
            if wait_s is None or exchange.started or time.monotonic() + wait_s >= deadline:
                return failure
            self._ingress.stats.cycles += 1
            exchange.rewind()
            attempt += 1
            await asyncio.sleep(wait_s)

    async def _run(self, scope: AsgiScope, exchange: _Exchange, request: RequestScope) -> Exception | None:
        own = dict(scope)  # apps write into it, and it may be needed again
        own["state"] = {**scope.get("state", {}), STATE_KEY: self._env}
        token = SCOPE.set(request)
        try:
            await self._app(own, exchange.receive, exchange.send)
        except Exception as error:
            return _single(error)
        finally:
            request.end()
            SCOPE.reset(token)
            _report_unawaited(request)
        return None


class _Exchange:
    """The request so far, to be read again, and the response as far as it can still be taken back."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self.started = False
        self._receive = receive
        self._send = send
        self._messages: list[Message] = []
        self._next = 0
        self._size = 0
        self._held: list[Message] = []

    async def receive(self) -> Message:
        """What the app reads.

        Raises:
            BodyTooLargeError: above 4 MiB.
        """
        if self._next == len(self._messages):
            message = await self._receive()
            if message["type"] != "http.request":
                return message
            self._size += len(message.get("body", b""))
            check_length(self._size)
            self._messages.append(message)
        self._next += 1
        return self._messages[self._next - 1]

    async def send(self, message: Message) -> None:
        """What the app answers; a 500 that comes in one piece is held back."""
        failed = message["type"] == "http.response.start" and message["status"] == 500
        if failed or (self._held and not message.get("more_body", False)):
            self._held.append(message)
        else:
            await self.flush()
            self.started = True
            await self._send(message)

    async def flush(self) -> None:
        """Send what was held back."""
        held, self._held = self._held, []
        for message in held:
            self.started = True
            await self._send(message)

    def rewind(self) -> None:
        """Begin again: the body is read from its start, an answer held back is forgotten."""
        self._next = 0
        self._held = []


def _report_unawaited(request: RequestScope) -> None:
    """The response may have left already: unlike a turn's, these calls can only be told of."""
    for call in list(request.unawaited or ()):
        logger.error("a front door's call of %s at %s:%d was never awaited: write `await`", call.method, *call.where)
        call.drop()


def _parent(scope: AsgiScope, id: CallId) -> bytes:
    """The token of a request, as `Call.token`. A client's key counts for its HTTP method and path only."""
    place = scope["method"].encode() + b" " + scope["raw_path"] if id.kind == CLIENT else b""
    return msgspec.msgpack.encode((id.kind, id.key, id.slot, id.count, NO_SHARD, place))


def check_length(length: int) -> None:
    """Refuse a body of that many bytes if it is too large.

    Raises:
        BodyTooLargeError: above 4 MiB.
    """
    if length > BODY_BYTES:
        raise BodyTooLargeError(f"a request's body has at most {BODY_BYTES} bytes")


def _single(error: Exception) -> Exception:
    """The exception inside a task group's, when there is just one."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _is_fetch(front_door: Any) -> bool:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in kinds for p in inspect.signature(front_door).parameters.values()) == 2


def _fetch_app(fetch: Callable[[Request, Any], Awaitable[Response]], env: object) -> ASGIApp:
    async def app(scope: AsgiScope, receive: Receive, send: Send) -> None:
        response = await fetch(Request(scope, receive, send), env)
        if not isinstance(response, Response):
            kind = type(response).__name__
            raise TypeError(f"fetch must return a starlette Response, not {kind}: write `return JSONResponse(...)`")
        await response(scope, receive, send)

    return ExceptionMiddleware(app)
