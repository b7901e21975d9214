"""`/_internal`: who may ask, what is refused, and that no other port has it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from kubeactor.errors import ActorShardUnavailableError
from kubeactor.ingress.internal import Unopened, host_routes, ingress_routes
from kubeactor.ingress.state import Ingress

BEARER = "Authorization: Bearer token"


class Host:
    """Knows shard 0 at epoch 1."""

    def __init__(self) -> None:
        self.granted: list[tuple[int, int]] = []
        self.open = True

    def inventory(self) -> dict[str, Any]:
        if not self.open:
            raise Unopened("VolumeInUse", ActorShardUnavailableError("somebody else has it"))
        return {"volume": "v"}

    def grant(self, volume: str, grants: Sequence[tuple[int, int]]) -> None:
        assert volume == "v"
        if (0, 2) in grants:
            raise ValueError("shard 0 is owned at epoch 1 here")
        self.granted += grants


async def probe(host: str) -> dict[str, Any] | None:
    if host == "away":
        raise ActorShardUnavailableError("it is away")
    return {"host": host} if host == "host-0" else None


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def internal(serving: Any, script: Any, host: Host) -> Any:
    ingress = Ingress(script())
    routes = [*host_routes(ingress, lambda: (b"token", b"older"), host)[:-1]]
    return serving(internal=[*routes, *ingress_routes(ingress, lambda: (b"token",), probe, lambda: {"table": None})])


@pytest.mark.parametrize("header", ["", "Authorization: Bearer wrong", "Authorization: Basic token", BEARER + "x"])
def test_without_the_secret_nothing_is_told_or_done(internal: Any, host: Host, header: str) -> None:
    headers = [header] if header else []
    for path, method in (
        ("inventory", "GET"),
        ("grant", "POST"),
        ("probe/host-0", "GET"),
        ("known", "GET"),
        ("other", "GET"),
    ):
        answer = internal.call(f"/_internal/{path}", b'{"volume": "v", "grants": [[1, 1]]}', *headers, method=method)
        assert (answer.status, answer.problem) == (401, "ActorUnauthenticatedError")
    assert host.granted == []


def test_either_token_opens_and_the_scheme_is_not_case_sensitive(internal: Any) -> None:
    for header in (BEARER, "authorization: bearer older"):
        answer = internal.call("/_internal/inventory", b"", header, method="GET")
        assert (answer.status, answer.json()) == (200, {"volume": "v"})


def test_a_volume_that_is_not_open_is_told_with_a_word_for_programs(internal: Any, host: Host) -> None:
    host.open = False
    answer = internal.call("/_internal/inventory", b"", BEARER, method="GET")
    assert (answer.status, answer.problem) == (503, "ActorShardUnavailableError")
    assert (answer.json()["reason"], answer.json()["detail"]) == ("VolumeInUse", "somebody else has it")


def test_an_ingress_tells_what_it_goes_by(internal: Any) -> None:
    answer = internal.call("/_internal/known", b"", BEARER, method="GET")
    assert (answer.status, answer.json()) == (200, {"table": None})


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"volume": "v", "grants": [[1, 1], [2, 7]]}', 200),
        (b'{"volume": "v", "grants": [[0, 2]]}', 409),
        (b'{"grants": [[1, 1]]}', 400),
        (b'{"volume": "v", "grants": [[1]]}', 400),
        (b'{"volume": "v", "grants": [], "more": 1}', 400),
        (b"{", 400),
        (b'{"grants": [' + b" " * 300_000 + b"]}", 413),
    ],
)
def test_grants_are_read_strictly(internal: Any, host: Host, body: bytes, status: int) -> None:
    answer = internal.call("/_internal/grant", body, BEARER)
    assert answer.status == status
    assert host.granted == ([(1, 1), (2, 7)] if status == 200 else [])
    assert status == 200 or answer.problem


def test_a_probe_is_passed_on_and_its_outcome_told(internal: Any) -> None:
    def probed(name: str) -> Any:
        return internal.call(f"/_internal/probe/{name}", b"", BEARER, method="GET")

    assert probed("host-0").json() == {"host": "host-0"}
    assert (probed("away").status, probed("away").json()["detail"]) == (503, "it is away")
    assert (probed("host-9").status, json.loads(probed("host-9").body)["status"]) == (404, 404)
    other = internal.call("/_internal/other", b"", BEARER, method="DELETE")
    assert (other.status, other.problem) == (404, "ActorUnknownMethodError")


def test_no_other_port_has_it(serving: Any) -> None:
    answer = serving().call("/_internal/inventory", b"", BEARER, method="GET")
    assert (answer.status, answer.problem) == (404, "ActorUnknownMethodError")
