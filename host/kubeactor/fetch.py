"""`fetch`: an HTTP request forwarded to an instance, and its response, as plain data between the processes.

It travels as a call like any other, of a method whose name no client can write as one, with one argument and one
result: dicts of method, path, query, headers, body and of status, headers, body. Both are read whole, within 4 MiB.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Final

from kubeactor.errors import BodyTooLargeError, CodecError
from kubeactor.limits import BODY_BYTES

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["FETCH", "packed_request", "run_fetch", "unpacked_response"]

FETCH: Final = "fetch/"  # no method's name has a slash


async def packed_request(request: Request, path: str | None = None) -> dict[str, Any]:
    """A request as plain data, its body read.

    Args:
        path: what the instance sees instead of the request's own path.

    Raises:
        BodyTooLargeError: when the body is above 4 MiB.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_BYTES:
            raise BodyTooLargeError(f"a request's body has at most {BODY_BYTES} bytes")
    return {
        "method": request.method,
        "path": request.url.path if path is None else path,
        "query": request.scope.get("query_string", b""),
        "headers": [list(header) for header in request.headers.raw],
        "body": bytes(body),
    }


async def run_fetch(self: Any, request: dict[str, Any]) -> dict[str, Any]:
    """The turn: hand the request to the actor's `fetch`, collect its response."""
    inner = _request(request)
    response = await self.fetch(inner)
    if not callable(response):
        raise CodecError(f"fetch returns a starlette Response, not {type(response).__name__}")
    return await _collected(response, inner)


def unpacked_response(response: dict[str, Any]) -> Response:
    """The response that `run_fetch` gave."""
    from starlette.responses import Response

    made = Response(response["body"], response["status"])
    made.raw_headers = [(name, value) for name, value in response["headers"]]
    return made


def _request(packed: dict[str, Any]) -> Request:
    from starlette.requests import Request

    waiting = [{"type": "http.request", "body": packed["body"], "more_body": False}]

    async def receive() -> dict[str, Any]:
        if waiting:
            return waiting.pop()
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]  # nobody disconnects

    path = packed["path"]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": packed["method"],
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": packed["query"],
        "headers": [(name, value) for name, value in packed["headers"]],
        "state": {},
    }
    return Request(scope, receive)


async def _collected(response: Response, request: Request) -> dict[str, Any]:
    """Run a response, a streaming one too, into memory."""
    found: dict[str, Any] = {"status": 500, "headers": [], "body": b""}
    body = bytearray()

    def send(message: Any) -> Coroutine[Any, Any, None]:
        return _keep(message, found, body)

    await response(request.scope, request.receive, send)
    found["body"] = bytes(body)
    return found


async def _keep(message: Any, found: dict[str, Any], body: bytearray) -> None:
    if message["type"] == "http.response.start":
        found["status"] = message["status"]
        found["headers"] = [list(header) for header in message.get("headers", [])]
    elif message["type"] == "http.response.body":
        body += message.get("body", b"")
        if len(body) > BODY_BYTES:
            raise BodyTooLargeError(f"a response's body has at most {BODY_BYTES} bytes")
