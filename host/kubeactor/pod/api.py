"""List and watch: keeps the objects that a selector matches, through all that ends a watch.

A watch that expired goes on from the last resourceVersion. Any error (410, a restarted server, a lost or silent
connection) is followed by a new list after a wait that doubles, with jitter, up to five seconds; and every ten minutes
all is listed anew, whatever the watch said. The objects that are known stay in use meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import random
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from kubeactor.connection import notice_dead_peers

if TYPE_CHECKING:
    from kubernetes.aio.client import ApiClient

__all__ = ["ApiProblem", "Reflector", "Selection", "api_client", "request"]

FIRST_S: Final = 0.1
LONGEST_S: Final = 5.0
SOUND_S: Final = 5.0  # a watch that lives so long has nothing to do with the failures before it
BRIEF_S: Final = 1.0
RELIST_S: Final = 600.0
WATCH_S: Final = 240
SILENT_S: Final = 90.0  # a bookmark comes every minute: without any byte for so long the connection is dead
ANSWER_S: Final = 15.0
ANSWER_BYTES: Final = 16 * 1024 * 1024

Object = dict[str, Any]

log = logging.getLogger(__name__)


class ApiProblem(Exception):
    """Raised when the API server can't be reached, refuses, or says what can't be understood; one sentence."""

    def __init__(self, detail: str, status: int = 0) -> None:
        super().__init__(detail)
        self.status = status


@contextlib.asynccontextmanager
async def api_client() -> AsyncIterator[ApiClient]:
    """The official client: with the pod's service account, or outside of a cluster with the user's kubeconfig.

    Raises:
        ApiProblem: when there is neither.
    """
    import aiohttp
    from kubernetes.aio import client, config

    configuration = client.Configuration()
    try:
        if "KUBERNETES_SERVICE_HOST" in os.environ:
            config.load_incluster_config(configuration)  # type: ignore[no-untyped-call]
        else:
            file = os.environ.get("KUBECONFIG") or None  # the client reads the variable when it is imported
            _look_for(file)
            await config.load_kube_config(file, client_configuration=configuration)  # type: ignore[no-untyped-call]
    except (config.ConfigException, OSError, ValueError, TypeError, AttributeError) as error:
        raise ApiProblem(f"neither a service account nor a kubeconfig can be used: {error}") from error
    api = client.ApiClient(configuration)
    connector = aiohttp.TCPConnector(ssl=api.rest_client.ssl_context, socket_factory=_socket)
    configuration.client_session_kwargs = {"connector": connector}
    try:
        yield api
    finally:
        await api.close()  # type: ignore[no-untyped-call]
        await connector.close()


def _look_for(file: str | None) -> None:
    """Raise OSError when there is no kubeconfig: the client takes that for one which lacks a key."""
    paths = (file or "~/.kube/config").split(os.pathsep)
    if not any(Path(path).expanduser().exists() for path in paths if path):
        raise OSError(
            f"there is no {' or '.join(paths)}; set KUBECONFIG to the file that kubectl reaches the cluster by"
        )


def _socket(address: Any) -> socket.socket:
    sock = socket.socket(*address[:3])
    notice_dead_peers(sock)  # else a watch that lost its way waits as long as TCP is willing to
    return sock


async def request(
    api: ApiClient,
    method: str,
    path: str,
    query: Mapping[str, str],
    *,
    body: object = None,
    content_type: str = "application/json",
) -> Object:
    """The JSON answer to a request.

    Raises:
        ApiProblem: when there is none; `status` is the server's, or 0.
    """
    async with _answer(api, method, path, query, total_s=ANSWER_S, body=body, content_type=content_type) as response:
        data = await response.content.read(ANSWER_BYTES + 1)
        while (more := await response.content.read(ANSWER_BYTES + 1)) and len(data) <= ANSWER_BYTES:
            data += more
        if len(data) > ANSWER_BYTES:
            raise ApiProblem(f"the API server answered with more than {ANSWER_BYTES} bytes")
        return _decoded(data)


@contextlib.asynccontextmanager
async def _answer(
    api: ApiClient,
    method: str,
    path: str,
    query: Mapping[str, str],
    *,
    total_s: float,
    body: object = None,
    content_type: str = "application/json",
) -> AsyncIterator[Any]:
    import aiohttp
    from kubernetes.aio.client.exceptions import ApiException
    from kubernetes.aio.config import ConfigException

    timeout = aiohttp.ClientTimeout(total=total_s, sock_connect=ANSWER_S, sock_read=SILENT_S)
    response = None
    try:
        asked = await api.param_serialize(
            method=method,
            resource_path=path,
            query_params=list(query.items()),
            header_params={"Accept": "application/json", "Content-Type": content_type},
            body=body,
            auth_settings=["BearerToken"],
        )
        # The client hands its timeout on as it is; a number would be the total, and a watch has to notice silence.
        response = (await api.call_api(*asked, _request_timeout=timeout)).response
        if response.status >= 300:
            raise ApiProblem(_message(await response.content.read(65536), response.status), response.status)
        yield response
    except (aiohttp.ClientError, OSError, TimeoutError, ApiException, ConfigException, ValueError) as error:
        raise ApiProblem(f"the API server can't be asked: {str(error) or type(error).__name__}") from error
    finally:
        if response is not None:
            response.close()


def _decoded(data: bytes) -> Object:
    found = json.loads(data)
    if not isinstance(found, dict):
        raise ValueError("the API server's answer is no object")
    return found


def _message(data: bytes, status: int) -> str:
    try:
        return f"the API server refuses: {_decoded(data)['message']}"
    except (ValueError, KeyError):
        return f"the API server answered with status {status}"


class Selection(NamedTuple):
    """The objects that are wanted.

    Attributes:
        path: of the collection, as in "/apis/kubeactor.io/v1alpha1/namespaces/bank/actorplacements".
        query: `fieldSelector` or `labelSelector`.
    """

    path: str
    query: dict[str, str]


class Reflector:
    """Keeps the objects of a selection.

    Attributes:
        trouble: why the API server can't be asked, one sentence; empty while it can.
        lists: how often all of them were listed.
    """

    def __init__(self, selection: Selection, changed: Callable[[list[Object]], None]) -> None:
        """`changed` gets all objects, at first and after each change."""
        self.trouble = "the API server was not asked yet"
        self.lists = 0
        self._selection = selection
        self._changed = changed
        self._items: dict[str, Object] = {}
        self._version = ""

    async def run(self, api: ApiClient) -> None:
        """Keep them until cancelled."""
        loop = asyncio.get_running_loop()
        delay = FIRST_S
        while True:
            began = loop.time()
            try:
                await self._list(api)
                await self._follow(api, began + RELIST_S * random.uniform(0.8, 1.2))
                continue
            except ApiProblem as error:
                # Expired versions are the normal end of a watch that nothing happened in.
                if error.status != 410:
                    self._troubled(str(error))
            if loop.time() - began >= SOUND_S:
                delay = FIRST_S
            await asyncio.sleep(delay * random.uniform(0.5, 1.5))
            delay = min(2 * delay, LONGEST_S)

    async def _list(self, api: ApiClient) -> None:
        found = await request(api, "GET", self._selection.path, self._selection.query)
        try:
            self._items = {item["metadata"]["name"]: item for item in found["items"]}
            self._version = found["metadata"]["resourceVersion"]
        except (KeyError, TypeError) as error:
            raise ApiProblem(f"the API server's list can't be understood: {error!r}") from error
        self.lists += 1
        self._well()
        self._changed(list(self._items.values()))

    async def _follow(self, api: ApiClient, until: float) -> None:
        loop = asyncio.get_running_loop()
        while loop.time() < until:
            seconds = random.randint(WATCH_S, WATCH_S * 5 // 4)
            query = {
                **self._selection.query,
                "watch": "true",
                "allowWatchBookmarks": "true",
                "resourceVersion": self._version,
                "timeoutSeconds": str(seconds),
            }
            began = loop.time()
            async with _answer(api, "GET", self._selection.path, query, total_s=seconds + ANSWER_S) as response:
                self._well()
                while line := await response.content.readline():
                    self._take(_decoded(line))
            if loop.time() - began < BRIEF_S:  # ended without an error, at once: do not ask in a loop
                raise ApiProblem("the API server ends each watch at once")

    def _take(self, event: Object) -> None:
        try:
            kind, item = event["type"], event["object"]
            if kind == "ERROR":
                raise ApiProblem(f"the API server ended a watch: {item.get('message')}", int(item.get("code", 0)))
            self._version = item["metadata"]["resourceVersion"]
            if kind == "BOOKMARK":
                return
            name = item["metadata"]["name"]
        except (KeyError, TypeError, AttributeError) as error:
            raise ApiProblem(f"the API server's event can't be understood: {error!r}") from error
        if kind == "DELETED":
            self._items.pop(name, None)
        else:
            self._items[name] = item
        self._changed(list(self._items.values()))

    def _well(self) -> None:
        if self.trouble:
            log.info("following %s", self._selection.path)
        self.trouble = ""

    def _troubled(self, trouble: str) -> None:
        if trouble != self.trouble:
            log.warning("%s: %s; going on with what is known", self._selection.path, trouble)
        self.trouble = trouble
