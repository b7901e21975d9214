"""An error as a response: status, headers and problem document (RFC 9457), the same on both paths."""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import msgspec
from starlette.types import Send

from kubeactor.errors import ActorError, ActorMethodError
from kubeactor.tracebacks import user_traceback

__all__ = ["JSON_TYPE", "Answer", "problem_of", "result_of", "send_answer", "unexpected"]

PROBLEM_JSON: Final = (b"content-type", b"application/problem+json")
TRACE_CHARS: Final = 16_000
JSON_TYPE: Final = (b"content-type", b"application/json")


class Answer(NamedTuple):
    """A response, ready for either path; the headers end with content-length."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


def problem_of(
    error: ActorError,
    *,
    request_id: str,
    instance: str | None = None,
    epoch: int | None = None,
    status: int | None = None,
    allow: str | None = None,
    dev: bool = False,
) -> Answer:
    """The response that carries an error; what the error does not say of itself is filled in.

    The error itself is not changed, since several calls may have got the same one. `status` replaces the error's own
    for what only HTTP knows (405, 431); `allow` is the value of the `Allow` header. Under `dev` the detail ends with
    the traceback of an unexpected exception, if that was raised in this process.
    """
    document = error.to_wire()
    if dev and isinstance(error, ActorMethodError) and error.__cause__ is not None:
        document["detail"] += "\n" + "".join(user_traceback(error.__cause__))[-TRACE_CHARS:]
    for field, value in (("request_id", request_id), ("instance", instance), ("epoch", epoch)):
        if value is not None:
            document.setdefault(field, value)
    if status is not None:
        document["status"] = status
    body = msgspec.json.encode(document, enc_hook=_text)
    headers = [PROBLEM_JSON]
    if epoch is not None:
        headers.append((b"kubeactor-epoch", b"%d" % epoch))
    headers.append((b"kubeactor-request-id", request_id.encode()))
    if error.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % math.ceil(error.retry_after_s)))
    if allow is not None:
        headers.append((b"allow", allow.encode()))
    headers.append((b"content-length", b"%d" % len(body)))
    return Answer(document["status"], headers, body)


def result_of(body: bytes, *, request_id: str, epoch: int) -> Answer:
    """The response that carries a result."""
    headers = [
        JSON_TYPE,
        (b"kubeactor-epoch", b"%d" % epoch),
        (b"kubeactor-request-id", request_id.encode()),
        (b"content-length", b"%d" % len(body)),
    ]
    return Answer(200, headers, body)


async def send_answer(answer: Answer, send: Send) -> None:
    """Write a response through ASGI."""
    await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
    await send({"type": "http.response.body", "body": answer.body})


def unexpected(error: BaseException, *, dev: bool) -> ActorMethodError:
    """What a client learns of an exception that is no ActorError: its class, and text and traceback under `dev`."""
    detail = f"{type(error).__name__}: {error}" if dev else "the request failed; the reason is in the log"
    made = ActorMethodError(detail, cause=type(error).__name__)
    made.__cause__ = error
    return made


def _text(value: Any) -> str:
    return str(value)
