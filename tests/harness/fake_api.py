"""A small Kubernetes API server on a thread: the two collections that hosts and ingresses watch, and its bad days."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web
from tests.harness.dev import free_port

__all__ = ["NAMESPACE", "FakeApi", "fake_api", "placement", "slice_of"]

NAMESPACE = "shop"
PLACEMENTS = "actorplacements"
SLICES = "endpointslices"
NAMESPACES = "actornamespaces"
LIMIT_S = 20.0
T = TypeVar("T")

Object = dict[str, Any]


class FakeApi:
    """An API server.

    Attributes:
        url: where it serves; the same after `stop` and `start`.
        asked: query of each list and watch, by plural.
        refuse: when set, every request is answered with that status.
        silent: whether requests get no answer at all.
        brief: whether watches end at once.
        patches: body of each PATCH, by name.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.refuse = 0
        self.silent = False
        self.brief = False
        self.patches: list[tuple[str, Any]] = []
        self._version = 100
        self._oldest = 0
        self._ended = 0
        self._objects: dict[str, dict[str, Object]] = {PLACEMENTS: {}, SLICES: {}, NAMESPACES: {}}
        self._events: list[tuple[int, str, Object]] = []
        self._runner: web.AppRunner | None = None
        self._loop = asyncio.new_event_loop()
        self._changed = asyncio.Condition()
        self._gone = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fake-api", daemon=True)
        self._thread.start()

    # What a test does

    def start(self) -> None:
        """Serve."""
        self._do(self._start())

    def stop(self) -> None:
        """Go away: refuse connections, break the open ones."""
        self._do(self._stop())

    def close(self) -> None:
        """End the thread."""
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(LIMIT_S)
        self._loop.run_until_complete(self._end_handlers())
        self._loop.close()

    def put(self, plural: str, name: str, **fields: Any) -> None:
        """Create or change an object."""
        self._do(self._put(plural, name, fields))

    def delete(self, plural: str, name: str) -> None:
        """Delete an object."""
        self._do(self._delete(plural, name))

    def compact(self) -> None:
        """Forget the history, so that each watch from before it is answered with 410; and end the running ones."""
        self._do(self._compact())

    def end_watches(self) -> None:
        """Let the running watches end, as after their time."""
        self._do(self._end())

    def bookmark(self, version: int) -> None:
        """Send a bookmark to all watches."""
        self._do(self._bookmark(version))

    def count(self, plural: str, *, watches: bool) -> int:
        """How many lists, or watches, were asked for."""
        return sum(kind == plural and ("watch" in query) == watches for kind, query in self.asked)

    def kubeconfig(self, path: Path) -> Path:
        """Write a kubeconfig."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "fake",
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake", "namespace": NAMESPACE}}],
            "clusters": [{"name": "fake", "cluster": {"server": self.url}}],
            "users": [{"name": "fake", "user": {"token": "secret-of-the-test"}}],
        }
        path.write_text(json.dumps(config))
        return path

    # On its own thread

    def _do(self, main: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(main, self._loop).result(LIMIT_S)

    async def _start(self) -> None:
        self._gone.clear()
        app = web.Application()
        app.router.add_get("/apis/{group}/{version}/namespaces/{namespace}/{plural}", self._collection)
        app.router.add_get("/apis/{group}/{version}/namespaces/{namespace}/{plural}/{name}", self._one)
        app.router.add_patch("/apis/{group}/{version}/namespaces/{namespace}/{plural}/{name}", self._patch)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)  # 0 would wait for ever
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True).start()

    async def _stop(self) -> None:
        if self._runner is not None:
            runner, self._runner = self._runner, None
            self._gone.set()
            await self._end()
            await runner.cleanup()
            await self._end_handlers()

    async def _end_handlers(self) -> None:
        """End what connections have begun, also one that was accepted in the last moment.

        A handler that is left on a closed loop fails whichever test runs when it is collected.
        """
        while handlers := asyncio.all_tasks() - {asyncio.current_task()}:
            for handler in handlers:
                handler.cancel()
            await asyncio.wait(handlers)

    async def _put(self, plural: str, name: str, fields: Mapping[str, Any]) -> None:
        self._version += 1
        kind = "MODIFIED" if name in self._objects[plural] else "ADDED"
        metadata = {"name": name, "namespace": NAMESPACE, "resourceVersion": str(self._version)}
        item = {**fields, "metadata": {**metadata, **fields.get("metadata", {})}}
        self._objects[plural][name] = item
        await self._tell(plural, kind, item)

    async def _delete(self, plural: str, name: str) -> None:
        self._version += 1
        item = self._objects[plural].pop(name)
        item = {**item, "metadata": {**item["metadata"], "resourceVersion": str(self._version)}}
        await self._tell(plural, "DELETED", item)

    async def _tell(self, plural: str, kind: str, item: Object) -> None:
        self._events.append((self._version, plural, {"type": kind, "object": item}))
        async with self._changed:
            self._changed.notify_all()

    async def _bookmark(self, version: int) -> None:
        self._version = max(self._version, version)
        for plural in (PLACEMENTS, SLICES):
            event = {"type": "BOOKMARK", "object": {"kind": "X", "metadata": {"resourceVersion": str(version)}}}
            self._events.append((version, plural, event))
        async with self._changed:
            self._changed.notify_all()

    async def _compact(self) -> None:
        self._version += 1
        self._oldest = self._version
        self._events.clear()
        await self._end()

    async def _end(self) -> None:
        async with self._changed:
            self._ended += 1
            self._changed.notify_all()

    async def _collection(self, request: web.Request) -> web.StreamResponse:
        plural = request.match_info["plural"]
        assert request.match_info["namespace"] == NAMESPACE
        assert request.headers["authorization"] == "Bearer secret-of-the-test"
        self.asked.append((plural, dict(request.query)))
        if self.silent:
            await self._gone.wait()
        if self.refuse:
            return web.json_response({"kind": "Status", "message": "not now", "code": self.refuse}, status=self.refuse)
        if "watch" in request.query:
            return await self._watch(request, plural)
        found = [item for item in self._objects[plural].values() if _selected(item, request.query)]
        return web.json_response({"metadata": {"resourceVersion": str(self._version)}, "items": found})

    async def _watch(self, request: web.Request, plural: str) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_type = "application/json"
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            await self._stream(request, plural, response)
        return response

    async def _stream(self, request: web.Request, plural: str, response: web.StreamResponse) -> None:
        seen, ended, at = int(request.query["resourceVersion"]), self._ended, 0
        if seen < self._oldest:
            gone = {"kind": "Status", "message": "too old resource version", "code": 410, "reason": "Expired"}
            await response.write(_line({"type": "ERROR", "object": gone}))
            return
        while ended == self._ended and not self.brief and not self._gone.is_set():
            events = self._events
            while at < len(events):
                version, kind, event = events[at]
                at += 1
                if version > seen and kind == plural and _selected(event["object"], request.query, event["type"]):
                    await response.write(_line(event))
            async with self._changed:
                if at == len(self._events) and ended == self._ended:
                    await self._changed.wait()

    async def _one(self, request: web.Request) -> web.StreamResponse:
        item = self._objects[request.match_info["plural"]].get(request.match_info["name"])
        if self.refuse or item is None:
            status = self.refuse or 404
            name = request.match_info["name"]
            return web.json_response({"message": f'"{name}" not found', "code": status}, status=status)
        return web.json_response(item)

    async def _patch(self, request: web.Request) -> web.StreamResponse:
        self.patches.append((request.match_info["name"], await request.json()))
        return await self._one(request)


def _line(event: Object) -> bytes:
    return json.dumps(event).encode() + b"\n"


def _selected(item: Object, query: Mapping[str, str], kind: str = "") -> bool:
    if kind == "BOOKMARK":
        return True
    field, label = query.get("fieldSelector"), query.get("labelSelector")
    if field and field != f"metadata.name={item['metadata']['name']}":
        return False
    return not label or label.split("=", 1)[1] == item["metadata"].get("labels", {}).get(label.split("=", 1)[0])


@contextmanager
def fake_api() -> Iterator[FakeApi]:
    """One that serves, and is closed at the end."""
    api = FakeApi()
    api.start()
    try:
        yield api
    finally:
        api.close()


def placement(uid: str, owners: list[str | None], volumes: Mapping[str, str], epoch: int = 1) -> Object:
    """The spec of an ActorPlacement."""
    from kubeactor.placement import Table

    epochs = [epoch if owner else 0 for owner in owners]
    found: Object = json.loads(Table(uid, volumes=volumes, owners=owners, epochs=epochs).to_json())
    return found


def slice_of(service: str, pods: Mapping[str, tuple[str, int]], **conditions: bool) -> Object:
    """The fields of an EndpointSlice whose pods all have the same port."""
    ports = {port for _, port in pods.values()}
    assert len(ports) == 1
    return {
        "metadata": {"labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "ports": [{"name": "internal", "port": 9090}, {"name": "frames", "port": ports.pop()}],
        "endpoints": [
            {
                "addresses": [address],
                "conditions": {"ready": False, **conditions},
                "targetRef": {"kind": "Pod", "name": pod},
            }
            for pod, (address, _) in pods.items()
        ],
    }
