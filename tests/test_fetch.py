"""`fetch`: HTTP forwarded to an instance, by the route of the ingress and by a stub in a front door."""

from __future__ import annotations

import asyncio
import http.client
import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
from tests.harness.dev import Dev

CODE = """
import asyncio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from kubeactor import Actor, Binding, Env, method

class Page(Actor):
    @method(timeout_s=0.3)
    async def fetch(self, request: Request, /) -> Response:
        if request.url.path == "/slow":
            await asyncio.sleep(60)
        if request.url.path == "/bad":
            return "text"
        if request.url.path == "/raise":
            await self.ctx.storage.put("views", 99)
            raise ValueError("no")
        if request.url.path == "/stream":
            async def parts():
                for i in range(3):
                    yield f"part {i};"
            return StreamingResponse(parts(), headers={"x-a": "1"})
        if request.url.path == "/big":
            return Response(b"x" * (4 * 1024 * 1024 + 1))
        views = (await self.ctx.storage.get("views") or 0) + 1
        await self.ctx.storage.put("views", views)
        seen = {"name": self.ctx.name, "views": views, "method": request.method, "path": request.url.path}
        seen |= {"query": request.url.query, "body": (await request.body()).decode(), "h": request.headers.get("x-h")}
        return JSONResponse(seen, status_code=201)

    async def views(self) -> int:
        return await self.ctx.storage.get("views") or 0

class Plain(Actor):
    async def hello(self) -> str:
        return "hello"

class Site(Env):
    PAGE: Binding[Page]
    PLAIN: Binding[Plain]

async def front(request: Request, env: Site) -> Response:
    return await env.PAGE.id_from_name(request.url.path.split("/")[1]).fetch(request)
"""


@pytest.fixture(scope="module", params=[None, 2], ids=["embedded", "two hosts"])
def port(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("fetch")
    (folder / "site_code.py").write_text(CODE)
    actors = ("site_code:Page", "site_code:Plain")
    dev = Dev(folder / "data", actors=actors, front_door="site_code:front", folder=folder, hosts=request.param)
    dev.start()
    try:
        asyncio.run(dev.ready())
        yield dev.port
    finally:
        dev.kill()


def ask(
    port: int, method: str, path: str, body: str = "", headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()


def test_any_method_reaches_the_instance_with_path_query_headers_and_body(port: int) -> None:
    url = "/v1/actors/PAGE/fetch/fetch/a%20b/c?x=1&y=2"
    status, headers, body = ask(port, "PUT", url, "text", {"x-h": "v"})
    document = json.loads(body)
    assert (status, document.pop("views")) == (201, 1)
    assert document == {
        "name": "fetch",
        "method": "PUT",
        "path": "/a b/c",
        "query": "x=1&y=2",
        "body": "text",
        "h": "v",
    }
    assert headers["kubeactor-epoch"] == "1"
    assert headers["kubeactor-request-id"]
    assert ask(port, "GET", "/v1/actors/PAGE/fetch/fetch")[0] == 201


def test_a_front_door_forwards_its_request_by_the_stub(port: int) -> None:
    first = json.loads(ask(port, "POST", "/alice/x?q=1", "hi")[2])
    second = json.loads(ask(port, "GET", "/alice/y")[2])
    assert (first["name"], first["path"], first["query"], first["body"], first["views"]) == (
        "alice",
        "/alice/x",
        "q=1",
        "hi",
        1,
    )
    assert second["views"] == 2
    assert ask(port, "POST", "/v1/actors/PAGE/alice/views")[2] == b"2"


def test_a_streamed_response_arrives_whole(port: int) -> None:
    status, headers, body = ask(port, "GET", "/v1/actors/PAGE/s/fetch/stream")
    assert (status, body, headers["x-a"]) == (200, b"part 0;part 1;part 2;", "1")


def test_a_fetch_under_a_key_is_applied_once(port: int) -> None:
    keyed = {"Idempotency-Key": "k1"}
    answers = {ask(port, "POST", "/v1/actors/PAGE/keyed/fetch/", "", keyed)[2] for _ in range(3)}
    assert len(answers) == 1
    assert ask(port, "POST", "/v1/actors/PAGE/keyed/views")[2] == b"1"


def test_a_class_without_fetch_is_told_what_to_write(port: int) -> None:
    said = json.loads(ask(port, "GET", "/v1/actors/PLAIN/e/fetch/x")[2])["detail"]
    assert said == "Plain has no `async def fetch(self, request)`: write one"


@pytest.mark.parametrize(
    ("path", "status", "name"),
    [
        ("/v1/actors/PAGE/e/fetch/slow", 504, "ActorFetchTimeoutError"),
        ("/v1/actors/PAGE/e/fetch/raise", 500, "ActorMethodError"),
        ("/v1/actors/PAGE/e/fetch/bad", 400, "CodecError"),
        ("/v1/actors/PAGE/e/fetch/big", 413, "BodyTooLargeError"),
        ("/v1/actors/PLAIN/e/fetch/x", 404, "ActorUnknownMethodError"),
        ("/v1/actors/NONE/e/fetch/x", 404, "ActorUnknownBindingError"),
        ("/v1/actors/PAGE/e/fetch%2F", 403, "ActorPrivateMethodError"),
    ],
)
def test_what_goes_wrong_is_a_problem_and_commits_nothing(port: int, path: str, status: int, name: str) -> None:
    got, _, body = ask(port, "POST", path)
    document = json.loads(body)
    assert (got, document["name"]) == (status, name)
    assert ask(port, "POST", "/v1/actors/PAGE/e/views")[2] == b"0"


def test_a_request_above_four_mebibytes_is_refused(port: int) -> None:
    status, _, body = ask(port, "POST", "/v1/actors/PAGE/e/fetch/x", "x" * (4 * 1024 * 1024 + 1))
    assert (status, json.loads(body)["name"]) == (413, "BodyTooLargeError")


def test_the_library_loads_no_web_framework() -> None:
    loaded = "import kubeactor, sys; print([m for m in ('starlette', 'uvicorn', 'rocksdict') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True).stdout == "[]\n"
