"""JSON in and out of the routes that operators and the operator call, in bodies of a bounded size."""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from kubeactor.errors import ActorArgumentError, BodyTooLargeError

__all__ = ["json_response", "read_document"]

T = TypeVar("T")

_encode: Final = msgspec.json.Encoder().encode


async def read_document(request: Request, kind: type[T], *, limit_bytes: int, example: str) -> T:
    """The request's body as that type.

    Raises:
        BodyTooLargeError: when it has more than `limit_bytes`.
        ActorArgumentError: when it is not of the type; it shows the example.
    """
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > limit_bytes:
            raise BodyTooLargeError(f"the body has at most {limit_bytes} bytes")
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.MsgspecError as error:
        raise ActorArgumentError(f"the body is not like {example}: {error}") from error


def json_response(value: object) -> Response:
    """A 200 with the value."""
    return Response(_encode(value), media_type="application/json")
