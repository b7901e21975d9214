"""`kubeactor call`: one call over HTTP, for a person at a terminal or a script."""

from __future__ import annotations

from typing import Any, Final, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

import msgspec

from kubeactor.errors import ActorError, from_document
from kubeactor.limits import BODY_BYTES

__all__ = ["CallError", "Target", "arguments", "make", "shown"]

SPARE_S: Final = 5.0  # the server answers at the call's deadline; this is for its answer to arrive
ANSWER_BYTES: Final = BODY_BYTES + 64 * 1024


class CallError(Exception):
    """Raised when the call can't be written, or what answers is no kubeactor; one sentence for the user."""


class Target(NamedTuple):
    """Which method of which instance; `unique` when the name is the 32 hex digits of a unique id."""

    binding: str
    name: str
    method: str
    unique: bool = False

    @property
    def path(self) -> str:
        """On the server."""
        kind = "ids" if self.unique else "actors"
        return "/".join(["/v1", kind, *(quote(part, safe="") for part in (self.binding, self.name, self.method))])


def arguments(texts: list[str]) -> bytes:
    """The body of a call: `amount=30` by name, `30` by position; what is no JSON is a text.

    Raises:
        CallError: when some are by name and some by position, or a name is given twice.
    """
    named: dict[str, Any] = {}
    given: list[Any] = []
    for text in texts:
        name, equals, value = text.partition("=")
        if not (equals and name.isidentifier()):
            given.append(_value(text))
        elif name in named:
            raise CallError(f"{name} is given twice")
        else:
            named[name] = _value(value)
    if named and given:
        raise CallError("give all arguments by name (amount=30) or all by position (30)")
    return msgspec.json.encode(named or given) if texts else b""


def _value(text: str) -> Any:
    try:
        return msgspec.Raw(msgspec.json.format(text, indent=-1)) if text else ""
    except msgspec.DecodeError:
        return text


def make(url: str, target: Target, body: bytes, *, timeout_s: float, key: str | None = None) -> bytes:
    """Make the call; the JSON of its result.

    Args:
        timeout_s: of the call, at the server.
        key: sent as Idempotency-Key: who repeats the command with it gets the first one's result.

    Raises:
        ActorError: what the call ended with.
        CallError: when no kubeactor answers there.
    """
    if not url.startswith(("http://", "https://")):
        raise CallError(f"{url!r} is no address of a server: write it as in http://127.0.0.1:8080")
    headers = {"content-type": "application/json", "kubeactor-timeout": f"{timeout_s:g}"}
    if key is not None:
        headers["idempotency-key"] = key
    address = url.rstrip("/") + target.path
    try:
        request = Request(address, body, headers, method="POST")  # noqa: S310 - the user's own address
        with urlopen(request, timeout=timeout_s + SPARE_S) as response:  # noqa: S310
            result: bytes = response.read(ANSWER_BYTES)
            return result
    except HTTPError as error:
        with error:
            raise _refusal(address, error.code, error.read(ANSWER_BYTES)) from error
    except (URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise CallError(f"{url} can't be reached ({reason}): start `kubeactor dev` there, or give --url") from error


def _refusal(address: str, status: int, body: bytes) -> ActorError | CallError:
    try:
        return from_document(body)
    except ValueError:
        text = " ".join(body[:200].decode(errors="replace").split())
        return CallError(f"{address} answers {status}, and not as kubeactor does: {text}")


def shown(result: bytes, *, one_line: bool) -> str:
    """The result for a person, or on one line.

    Raises:
        CallError: when it is no JSON.
    """
    try:
        return msgspec.json.format(result, indent=-1 if one_line else 2).decode()
    except msgspec.DecodeError as error:
        raise CallError(f"the answer is no JSON, so it is not from kubeactor: {error}") from error
