"""What the operator asks hosts and ingresses over their internal HTTP, by pod address.

Each question has a timeout and a bound on its answer, so a pod that hangs or talks nonsense costs one question.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeVar

import aiohttp
import msgspec

from kubeactor_operator import names
from kubeactor_operator.observed import Disk, Inventory, Known, Silent

__all__ = ["Pods", "PodError"]

TIMEOUT_S: Final = 3.0
GRANT_TIMEOUT_S: Final = 15.0
ANSWER_BYTES: Final = 1024 * 1024
CONNECTIONS: Final = 64
DETAIL_CHARACTERS: Final = 300


T = TypeVar("T")


class PodError(Exception):
    """Raised when a pod refuses (its status), or does not answer (status 0); the text says what it said.

    `disk` is a host's, when that is why its volume is not open.
    """

    def __init__(self, status: int, message: str, disk: Disk | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.disk = disk or Disk()


class _Problem(msgspec.Struct):
    title: str = ""
    detail: str = ""
    disk: Disk = Disk()


class Pods:
    """A client of all pods of all namespaces; each question brings its namespace's credential."""

    def __init__(self, port: int = names.INTERNAL) -> None:
        self._port = port
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Pods:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=CONNECTIONS, keepalive_timeout=30.0), trust_env=False
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session:
            await self._session.close()

    async def inventory(self, address: str, credential: str) -> Inventory | Silent:
        """What lies on the host's volume, or why that can't be told."""
        return await self._told(address, "inventory", credential, Inventory)

    async def known(self, address: str, credential: str) -> Known | Silent:
        """What the ingress goes by, or why that can't be told."""
        return await self._told(address, "known", credential, Known)

    async def _told(self, address: str, what: str, credential: str, type: type[T]) -> T | Silent:
        try:
            answer = await self._ask("GET", address, f"/_internal/{what}", credential)
            return msgspec.json.decode(answer, type=type)
        except PodError as error:
            return Silent(str(error), answers=error.status != 0, disk=error.disk)
        except msgspec.MsgspecError as error:
            return Silent(f"its answer can't be read: {error}", answers=True)

    async def grant(self, address: str, credential: str, volume: str, grants: Sequence[tuple[int, int]]) -> None:
        """Let the host begin these (shard, epoch) empty on that volume; it has stored them when this returns.

        Raises:
            PodError: when it refuses or does not answer.
        """
        body = msgspec.json.encode({"volume": volume, "grants": grants})
        await self._ask("POST", address, "/_internal/grant", credential, body, GRANT_TIMEOUT_S)

    async def probe(self, address: str, credential: str, host: str) -> None:
        """Let the ingress at the address write and read in a shard of the host.

        Raises:
            PodError: when it could not (the ingress's own status and reason), or the ingress does not answer (0).
        """
        await self._ask("GET", address, f"/_internal/probe/{host}", credential, timeout_s=6.0)

    async def _ask(
        self,
        method: str,
        address: str,
        path: str,
        credential: str,
        body: bytes | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> bytes:
        assert self._session, "use it as a context manager"
        where = f"[{address}]" if ":" in address else address
        headers = {"Authorization": f"Bearer {credential}", "Content-Type": "application/json"}
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        try:
            async with self._session.request(
                method,
                f"http://{where}:{self._port}{path}",
                data=body,
                headers=headers,
                timeout=timeout,
                allow_redirects=False,
            ) as response:
                answer = await _bounded(response)
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise PodError(0, f"no answer from {address}: {error or type(error).__name__}") from error
        if response.status >= 300:
            raise _refusal(response.status, answer)
        return answer


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    answer = b""
    while piece := await response.content.read(ANSWER_BYTES):
        answer += piece
        if len(answer) > ANSWER_BYTES:
            raise aiohttp.ClientPayloadError(f"an answer above {ANSWER_BYTES} bytes")
    return answer


def _refusal(status: int, answer: bytes) -> PodError:
    try:
        problem = msgspec.json.decode(answer, type=_Problem)
    except msgspec.MsgspecError:
        problem = _Problem()
    text = problem.detail or problem.title or f"status {status}"
    return PodError(status, text[:DETAIL_CHARACTERS], problem.disk)
