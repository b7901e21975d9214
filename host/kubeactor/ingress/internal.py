"""`/_internal`: what the operator asks hosts and ingresses, on the port that the outside can't reach.

GET  /_internal/inventory      of a host: what lies on its volume
POST /_internal/grant          to a host: begin shards empty, `{"volume": id, "grants": [[shard, epoch], ...]}`
GET  /_internal/known          of an ingress: the credentials and the placement table that it goes by
GET  /_internal/probe/{host}   to an ingress: let that host write, sync and read in one of its shards

Whoever asks shows the peer secret: `Authorization: Bearer ...`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kubeactor.errors import (
    ActorArgumentError,
    ActorError,
    ActorFencedError,
    ActorUnauthenticatedError,
    ActorUnknownMethodError,
)
from kubeactor.ingress.documents import json_response, read_document
from kubeactor.ingress.state import Ingress
from kubeactor.wire import authentic

__all__ = ["PREFIX", "HostSide", "Unopened", "host_routes", "ingress_routes"]

PREFIX: Final = "/_internal/"
BODY_BYTES: Final = 256 * 1024  # 4,096 grants of the longest epochs
EXAMPLE: Final = '{"volume": "...", "grants": [[0, 1], [1, 1]]}'

_encode: Final = msgspec.json.Encoder().encode

Accepted = Callable[[], Sequence[bytes]]
Endpoint = Callable[[Request], Awaitable[Response]]


class Unopened(Exception):
    """Raised while the volume of a host is not open.

    Attributes:
        reason: one word for programs; error: the sentence.
        disk: how full the disk is, when that is why; as in an inventory.
    """

    def __init__(self, reason: str, error: ActorError, disk: dict[str, Any] | None = None) -> None:
        super().__init__(error.detail)
        self.reason = reason
        self.error = error
        self.disk = disk


class HostSide(Protocol):
    """What a host tells and does."""

    def inventory(self) -> dict[str, Any]:
        """What lies on the volume; raises Unopened."""

    def grant(self, volume: str, grants: Sequence[tuple[int, int]]) -> None:
        """Begin them on that volume: stored and synced when it returns.

        Raises:
            Unopened: when the volume is not open.
            ActorOverloadedError: when the disk is behind.
            ValueError: when this is another volume, or one of them is known at another epoch.
        """


class _Grants(msgspec.Struct, forbid_unknown_fields=True):
    volume: str
    grants: list[tuple[int, int]]


def host_routes(ingress: Ingress, accepted: Accepted, host: HostSide) -> list[Route]:
    """The routes of a host's internal port; `accepted` gives the tokens of the moment."""

    async def inventory(request: Request) -> Response:
        return json_response(host.inventory())

    async def grant(request: Request) -> Response:
        asked = await read_document(request, _Grants, limit_bytes=BODY_BYTES, example=EXAMPLE)
        try:
            host.grant(asked.volume, asked.grants)
        except ValueError as error:
            return _problem(ingress, ActorFencedError(str(error)), status=409)
        return json_response({})

    guarded = _guarded(ingress, accepted)
    return [
        Route(f"{PREFIX}inventory", guarded(inventory), methods=["GET"]),
        Route(f"{PREFIX}grant", guarded(grant), methods=["POST"]),
        _nothing(ingress, guarded),
    ]


def ingress_routes(
    ingress: Ingress,
    accepted: Accepted,
    probe: Callable[[str], Awaitable[dict[str, Any] | None]],
    known: Callable[[], dict[str, Any]],
) -> list[Route]:
    """The routes of an ingress's internal port; `probe` gives None for a host that owns no shard."""

    async def told(request: Request) -> Response:
        return json_response(known())

    async def probed(request: Request) -> Response:
        host = request.path_params["host"]
        found = await probe(host)
        if found is None:
            error = ActorArgumentError(f"the placement table knows no shard of a host {host[:80]!r}")
            return _problem(ingress, error, status=404)
        return json_response(found)

    guarded = _guarded(ingress, accepted)
    return [
        Route(f"{PREFIX}known", guarded(told), methods=["GET"]),
        Route(f"{PREFIX}probe/{{host}}", guarded(probed), methods=["GET"]),
        _nothing(ingress, guarded),
    ]


def _nothing(ingress: Ingress, guarded: Callable[[Endpoint], Endpoint]) -> Route:
    async def nothing(request: Request) -> Response:
        error = ActorUnknownMethodError(f"{request.method} {request.url.path[:200]} is nothing that is asked for here")
        return _problem(ingress, error)

    return Route(f"{PREFIX}{{path:path}}", guarded(nothing), methods=["GET", "POST", "PUT", "PATCH", "DELETE"])


def _guarded(ingress: Ingress, accepted: Accepted) -> Callable[[Endpoint], Endpoint]:
    """Endpoints that answer only who knows the secret, and errors as problem documents."""

    def guard(endpoint: Endpoint) -> Endpoint:
        async def answer(request: Request) -> Response:
            scheme, _, token = request.headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not authentic(token.strip().encode("latin-1"), accepted()):
                error = ActorUnauthenticatedError("say the peer secret: Authorization: Bearer ...")
                return _problem(ingress, error)
            try:
                return await endpoint(request)
            except Unopened as closed:
                more = {"reason": closed.reason, **({"disk": closed.disk} if closed.disk else {})}
                return _problem(ingress, closed.error, more=more)
            except ActorError as error:
                return _problem(ingress, error)

        return answer

    return guard


def _problem(
    ingress: Ingress, error: ActorError, status: int | None = None, more: Mapping[str, Any] | None = None
) -> Response:
    answer = ingress.refuse(error, status=status)
    body = answer.body
    if more:
        body = _encode({**msgspec.json.decode(body), **more})
    headers = [header for header in answer.headers if header[0] != b"content-length"]
    response = Response(body, answer.status)
    response.raw_headers = [*headers, (b"content-length", b"%d" % len(body))]
    return response
