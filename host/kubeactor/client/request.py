"""A call as an HTTP request, and an answer as a result or an error. No I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlsplit

import msgspec

from kubeactor.actor import Method
from kubeactor.call import JSON
from kubeactor.client.bindings import ClientStub
from kubeactor.client.keys import take_key
from kubeactor.errors import (
    ActorError,
    ActorQuotaError,
    ActorShardUnavailableError,
    ActorUnauthenticatedError,
    BodyTooLargeError,
    from_wire,
)
from kubeactor.ids import ActorId
from kubeactor.limits import BODY_BYTES

__all__ = ["ANSWER_BYTES", "Address", "Answer", "Request", "result_of"]

# A result has at most as much as a body; a problem document has less.
ANSWER_BYTES: Final = BODY_BYTES

_TOKEN: Final = re.compile(r"[!-~]+")
_SECONDS: Final = re.compile(r"[0-9]{1,9}")

# What a proxy answers, without a problem document of ours. Its own 5xx say nothing of what came through before.
_FOREIGN: Final[Mapping[int, type[ActorError]]] = {
    401: ActorUnauthenticatedError,
    413: BodyTooLargeError,
    429: ActorQuotaError,
    502: ActorShardUnavailableError,
    503: ActorShardUnavailableError,
    504: ActorShardUnavailableError,
}
_NOT_PASSED_ON: Final = (401, 413, 429)


class Request(NamedTuple):
    """One call, the same for each of its attempts.

    Attributes:
        label: `ACCOUNT/alice.debit`, for messages.
        headers: without `Kubeactor-Timeout`, which is another one for each attempt.
    """

    url: str
    headers: dict[str, bytes]
    body: bytes
    method: Method
    label: str


class Answer(NamedTuple):
    """One whole answer, or as much of it as shows that it is too large."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def content_type(self) -> str:
        """Without parameters, in lower case; empty when there is none."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def retry_after_s(self) -> int | None:
        """Of the header, when it gives seconds; a date is left out, since clocks differ."""
        text = self.headers.get("retry-after", "").strip()
        return int(text) if _SECONDS.fullmatch(text) else None


class Address:
    """Where a namespace is reached, and with which credentials.

    Args:
        url: of the ingress, `http://bank-api.default:8081`; a path in front of `/v1` is kept.
        token: sent as `Authorization: Bearer`.

    Raises:
        ValueError: when either can't be used.
    """

    def __init__(self, url: str, token: str | None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(f"{url!r} is no address of an ingress; write it as in http://bank-api.default:8081")
        if parts.username is not None or parts.password is not None:
            raise ValueError("credentials are no part of the address; give them as token=")
        if token is not None and not _TOKEN.fullmatch(token):
            raise ValueError("a token is visible ASCII without spaces")
        self.url = url.rstrip("/")
        self.secure = parts.scheme == "https"
        self._headers = {} if token is None else {"Authorization": b"Bearer " + token.encode()}

    def request(self, stub: ClientStub, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Request:
        """The request of a call, under the key given for it or a new one.

        Raises:
            CodecError: when an argument has no form in JSON; the detail names it.
            BodyTooLargeError: when the arguments have more than 4 MiB.
            IdempotencyConflictError: when the key given for one call has had it.
        """
        method = stub._type.methods[name]
        body = method.arguments.encode(args, kwargs, JSON)
        headers = {**self._headers, "Content-Type": b"application/json", "Idempotency-Key": take_key()}
        return Request(f"{self.url}{path_of(stub._id)}/{name}", headers, body, method, f"{stub._id}.{name}")


def path_of(id: ActorId) -> str:
    """The path of an instance, its name as one segment. Dots alone are escaped too: they would be taken for steps."""
    if id.name is None:
        return f"/v1/ids/{id.binding}/{id.identity[1:].decode()}"
    segment = quote(id.identity, safe="")
    if segment in (".", ".."):
        segment = segment.replace(".", "%2E")
    return f"/v1/actors/{id.binding}/{segment}"


def result_of(request: Request, answer: Answer) -> Any:
    """The result that an answer carries.

    Raises:
        ActorError: what the call ended with, of the same class as at the actor.
        CodecError: when the result does not fit the return hint.
    """
    if (error := failure_of(request, answer)) is not None:
        raise error
    return request.method.arguments.decode_result(answer.body, JSON)


def failure_of(request: Request, answer: Answer) -> ActorError | None:
    """The error that an answer carries, if it is no result."""
    if len(answer.body) > ANSWER_BYTES:
        return BodyTooLargeError(f"{request.label}: the answer has more than {ANSWER_BYTES} bytes", started="unknown")
    if answer.status == 200 and answer.content_type == "application/json":
        return None
    error = _problem(answer) or _foreign(request, answer)
    if (asked_s := answer.retry_after_s) is not None:
        error.retry_after_s = asked_s
    return error


def _problem(answer: Answer) -> ActorError | None:
    """The error of a problem document, if it is one of kubeactor: those have a name."""
    if answer.content_type != "application/problem+json":
        return None
    try:
        document = msgspec.json.decode(answer.body, type=dict[str, Any])
        return from_wire(document) if isinstance(document.get("name"), str) else None
    except (msgspec.MsgspecError, UnicodeDecodeError, TypeError):
        return None


def _foreign(request: Request, answer: Answer) -> ActorError:
    cls = _FOREIGN.get(answer.status, ActorError)
    error = cls(
        f"{request.label}: {request.url} answered {answer.status} with {answer.content_type or 'no content type'},"
        " which is not an answer of kubeactor; is that the address of its API?",
        retry_after_s=None,
    )
    if answer.status not in _NOT_PASSED_ON:
        error.started = "unknown"
    return error
