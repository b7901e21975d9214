"""`/v1/parked`: what hosts have parked, for operators."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kubeactor.errors import ActorError, ActorShardUnavailableError
from kubeactor.ingress.documents import json_response, read_document
from kubeactor.ingress.state import Ingress
from kubeactor.parked import PATH, Keepers, Retried, Retry

__all__ = ["parked_routes"]

BODY_BYTES: Final = 64 * 1024
EXAMPLE: Final = '{"kind": "message", "instance": "ACCOUNT/alice", "number": 7}'


def parked_routes(ingress: Ingress, keepers: Callable[[], Keepers | None]) -> list[Route]:
    """The routes of a port.

    Args:
        ingress: of the port.
        keepers: whom to ask; None as long as the process is starting.
    """

    def ready() -> Keepers:
        found = keepers()
        if found is None:
            raise ActorShardUnavailableError("this process is starting")
        return found

    async def show(request: Request) -> Response:
        return json_response(await ready().list_parked())

    async def retry(request: Request) -> Response:
        wanted = await read_document(request, Retry, limit_bytes=BODY_BYTES, example=EXAMPLE)
        return json_response(Retried(await ready().retry_parked(wanted)))

    return [
        Route(PATH, _answering(ingress, show), methods=["GET"]),
        Route(f"{PATH}/retry", _answering(ingress, retry), methods=["POST"]),
    ]


Endpoint = Callable[[Request], Coroutine[Any, Any, Response]]


def _answering(ingress: Ingress, endpoint: Endpoint) -> Endpoint:
    """The endpoint, its errors as problem documents."""

    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except ActorError as error:
            status, headers, body = ingress.refuse(error)
            response = Response(body, status)
            response.raw_headers = headers
            return response

    return answer
