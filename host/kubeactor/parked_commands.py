"""What an operator does by hand: `kubeactor parked`, `kubeactor retry`, `kubeactor release`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeVar
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import msgspec

from kubeactor.ids import ActorId
from kubeactor.parked import MESSAGE, PATH, Item, Retried, Retry
from kubeactor.quarantine import release as release_on

__all__ = ["ParkedError", "fetch", "lines", "release", "retry"]

TIMEOUT_S: Final = 30.0
T = TypeVar("T")


class ParkedError(Exception):
    """Raised when the server can't be asked, or refuses; the text is for the user."""


def fetch(url: str) -> list[Item]:
    """What is parked behind the server at that address.

    Raises:
        ParkedError: when it can't be asked.
    """
    return _ask(Request(url.rstrip("/") + PATH), list[Item])  # noqa: S310 - the user's own address


def retry(url: str, one: Retry) -> bool:
    """Try one again; False when there is none such.

    Raises:
        ParkedError: when the server can't be asked, or refuses.
    """
    headers = {"content-type": "application/json"}
    body = msgspec.json.encode(one)
    return _ask(Request(f"{url.rstrip('/')}{PATH}/retry", body, headers), Retried).retried  # noqa: S310


def _ask(request: Request, type: type[T]) -> T:
    try:
        with urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310
            return msgspec.json.decode(response.read(), type=type)
    except HTTPError as error:
        with error:
            raise ParkedError(f"{request.full_url} answers {error.code}: {_detail(error.read())}") from error
    except (URLError, OSError) as error:
        raise ParkedError(f"{request.full_url} can't be reached: {getattr(error, 'reason', error)}") from error
    except msgspec.MsgspecError as error:
        raise ParkedError(f"{request.full_url} is no kubeactor server: {error}") from error


def _detail(body: bytes) -> str:
    try:
        document = msgspec.json.decode(body, type=dict[str, object])
    except msgspec.MsgspecError:
        return body[:200].decode(errors="replace")
    return str(document.get("detail", ""))


def lines(items: list[Item]) -> list[str]:
    """As a person reads them, the one that waits longest first."""
    return [_line(item) for item in sorted(items, key=lambda item: item.since)]


def _line(item: Item) -> str:
    since = datetime.fromtimestamp(item.since, UTC).isoformat(" ", "seconds").removesuffix("+00:00")
    what = f"{item.kind} {item.instance}"
    if item.kind == MESSAGE:
        what += f" {item.number} -> {item.receiver}.{item.method}"
    return f"{since}Z  {what}  attempts: {item.attempts}  {item.error}"


def release(data: Path, instance: str) -> bool:
    """End the quarantine of an instance on whichever host of a data folder holds it; False when none does.

    Raises:
        ParkedError: when it is no actor id, or the folder is not one of kubeactor's.
    """
    try:
        actor = ActorId.parse(instance)
    except ValueError as error:
        raise ParkedError(str(error)) from error
    if not data.is_dir():
        raise ParkedError(f"there is no data folder {data}")
    released = [release_on(file.parent, actor) for file in data.glob("*/quarantine.json")]
    return any(released)
