"""What the contract promises over HTTP, asked of the real commands: keys, time limits, errors, what is callable."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from tests.harness.dev import free_port
from tests.harness.program import Program, running

RETRIES = 64


@pytest.fixture(scope="module", params=["embedded", "hosts", "apart"])
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    folder = tmp_path_factory.mktemp("lab")
    tail = ["--data", str(folder / "data"), "--front-door", "lab:fetch"]
    with ExitStack() as stack:
        command = ["dev", "lab:Lab", "--port", "{port}", *tail]
        if request.param == "hosts":
            command += ["--hosts", "2"]
        if request.param == "apart":
            frames = str(free_port())
            stack.enter_context(running(folder / "host.log", "host", "lab:Lab", "--port", frames, *tail))
            command = ["ingress", "lab:Lab", "--port", "{port}", "--host", f"host-0=127.0.0.1:{frames}", *tail]
        yield stack.enter_context(running(folder / "log", *command)).ready()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """An instance of the test's own."""
    return request.node.name


def call(lab: Program, name: str, method: str, body: Any = None, **headers: str) -> httpx.Response:
    sent = {key.replace("_", "-"): value for key, value in headers.items()}
    return lab.http.post(f"/v1/actors/LAB/{name}/{method}", json=body or {}, headers=sent)


def test_a_repeated_key_gets_the_recorded_result(lab: Program, name: str) -> None:
    first, second = (call(lab, name, "add", Idempotency_Key="k") for _ in range(2))
    assert (first.status_code, first.json()) == (second.status_code, second.json()) == (200, 1)
    assert call(lab, name, "add", Idempotency_Key="other").json() == 2
    assert call(lab, name + "b", "add", Idempotency_Key="k").json() == 1  # a key belongs to its instance


def test_a_read_is_recorded_under_a_key_too(lab: Program, name: str) -> None:
    assert call(lab, name, "count", Idempotency_Key="k").json() == 0
    assert call(lab, name, "add").json() == 1
    assert call(lab, name, "count", Idempotency_Key="k").json() == 0
    assert call(lab, name, "count").json() == 1


@pytest.mark.parametrize(("method", "body"), [("add", {"amount": 2}), ("slow", {"seconds": 0})])
def test_the_same_key_with_another_body_or_method_is_a_conflict(
    lab: Program, name: str, method: str, body: dict[str, Any]
) -> None:
    call(lab, name, "add", {"amount": 1}, Idempotency_Key="k")
    answer = call(lab, name, method, body, Idempotency_Key="k")
    assert (answer.status_code, answer.json()["name"]) == (409, "IdempotencyConflictError")
    assert answer.json()["retryable"] is False
    assert call(lab, name, "count").json() == 1


def test_a_turn_that_raised_is_not_recorded_and_its_retry_runs(lab: Program, name: str) -> None:
    for _ in range(2):
        answer = call(lab, name, "fail", Idempotency_Key="k")
        assert (answer.status_code, answer.json()["cause"]) == (500, "ZeroDivisionError")
    assert call(lab, name, "count").json() == 0


def at_once(lab: Program, send: Any) -> list[httpx.Response]:
    barrier = threading.Barrier(RETRIES)

    def one(client: httpx.Client) -> httpx.Response:
        barrier.wait()
        answer: httpx.Response = send(client)
        return answer

    with ExitStack() as stack, ThreadPoolExecutor(RETRIES) as pool:
        clients = [stack.enter_context(httpx.Client(base_url=lab.http.base_url, timeout=60)) for _ in range(RETRIES)]
        return list(pool.map(one, clients))


def test_retries_that_overlap_join_the_first_and_get_its_answer(lab: Program, name: str) -> None:
    answers = at_once(
        lab,
        lambda client: client.post(f"/v1/actors/LAB/{name}/slow", json=[0.3], headers={"Idempotency-Key": "k"}),
    )
    assert {(answer.status_code, answer.text) for answer in answers} == {(200, "1")}
    assert call(lab, name, "count").json() == 1


def test_retries_that_overlap_at_the_front_door_apply_its_calls_once(lab: Program, name: str) -> None:
    answers = at_once(lab, lambda client: client.post(f"/{name}/twice", json={}, headers={"Idempotency-Key": "k"}))
    assert {(answer.status_code, answer.text) for answer in answers} == {(200, "[1,2]")}
    assert call(lab, name, "count").json() == 2


def test_a_key_at_the_front_door_with_another_body_is_a_conflict(lab: Program, name: str) -> None:
    sent = {"Idempotency-Key": "k"}
    assert lab.http.post(f"/{name}/add", json={"amount": 1}, headers=sent).json() == 1
    answer = lab.http.post(f"/{name}/add", json={"amount": 2}, headers=sent)
    assert (answer.status_code, answer.json()["name"]) == (409, "IdempotencyConflictError")
    assert call(lab, name, "count").json() == 1


@pytest.mark.parametrize("seconds", ["0", "301", "abc", "-1", "", "nan", "inf", "1e1"])
@pytest.mark.parametrize("path", ["/v1/actors/LAB/timeouts/add", "/timeouts/add"])
def test_a_bad_time_limit_is_a_400(lab: Program, seconds: str, path: str) -> None:
    answer = lab.http.post(path, json={}, headers={"Kubeactor-Timeout": seconds})
    assert (answer.status_code, answer.json()["name"]) == (400, "ActorArgumentError")
    assert "Kubeactor-Timeout" in answer.json()["detail"]
    assert call(lab, "timeouts", "count").json() == 0


@pytest.mark.parametrize("seconds", ["0.5", "300", ".5", "1"])
def test_a_good_time_limit_is_taken(lab: Program, name: str, seconds: str) -> None:
    assert call(lab, name, "add", Kubeactor_Timeout=seconds).json() == 1


@pytest.mark.parametrize("path", ["/v1/actors/LAB/{}/slow", "/{}/slow"])
def test_a_method_that_takes_too_long_is_a_504_and_commits_nothing(lab: Program, name: str, path: str) -> None:
    name = name.replace("/", "_").replace("{", "").replace("}", "")
    began = time.monotonic()
    answer = lab.http.post(path.format(name), json={"seconds": 20}, headers={"Kubeactor-Timeout": "1"})
    assert (answer.status_code, answer.json()["name"]) == (504, "ActorMethodTimeoutError")
    assert answer.json()["started"] == "yes"  # its host says so, unless it is slower than the whole time limit
    assert time.monotonic() - began < 15
    assert call(lab, name, "add").json() == 1


def test_a_call_that_waits_too_long_for_its_turn_was_not_started(lab: Program, name: str) -> None:
    with ThreadPoolExecutor(1) as pool, httpx.Client(base_url=lab.http.base_url) as client:
        first = pool.submit(client.post, f"/v1/actors/LAB/{name}/slow", json=[1.0])
        while call(lab, name, "count", Kubeactor_Timeout="0.05").status_code == 200:
            pass
        answer = call(lab, name, "add", Kubeactor_Timeout="0.1")
        # An ingress that has sent the frame can't tell whether its host has started the call.
        assert (answer.status_code, answer.json()["started"] in ("no", "unknown")) == (504, True)
        assert first.result().json() == 1
    assert call(lab, name, "count").json() == 1


def test_an_internal_method_is_for_actors_and_the_front_door(lab: Program, name: str) -> None:
    answer = call(lab, name, "hidden")
    assert (answer.status_code, answer.json()["name"]) == (403, "ActorPrivateMethodError")
    assert lab.http.post(f"/{name}/hidden", json={}).json() == "seen"
    assert call(lab, name, "ask_hidden", {"other": f"{name}-other"}).json() == "seen"


@pytest.mark.parametrize("text", ["nan", "inf", "-inf"])
def test_a_number_that_json_lacks_is_an_error_and_not_null(lab: Program, name: str, text: str) -> None:
    answer = call(lab, name, "number", {"text": text})
    assert (answer.status_code, answer.json()["name"]) == (400, "CodecError")
    assert call(lab, name, "number", {"text": "1.5"}).json() == 1.5


def test_a_result_that_is_no_plain_data_is_an_error(lab: Program, name: str) -> None:
    answer = call(lab, name, "thing")
    assert (answer.status_code, answer.json()["name"]) == (400, "CodecError")


def test_a_refusal_has_its_status_name_and_members(lab: Program, name: str) -> None:
    for answer in (call(lab, name, "refuse"), lab.http.post(f"/{name}/refuse", json={})):
        problem = answer.json()
        assert answer.headers["content-type"] == "application/problem+json"
        assert (answer.status_code, problem["status"]) == (402, 402)
        assert (problem["name"], problem["balance"], problem["detail"]) == ("TooPoor", 5, "too poor")
        assert problem["retryable"] is False
        assert problem["instance"] == f"LAB/{name}"
        assert problem["request_id"]
    assert call(lab, name, "count").json() == 0


def test_a_refusal_is_raised_again_as_its_class(lab: Program, name: str) -> None:
    assert lab.http.post(f"/{name}/caught", json={}).json() == {"caught": 5}
    assert call(lab, name, "meet", {"other": f"{name}-other"}).json() == {"same": True, "balance": 5}


def test_any_other_exception_is_a_500_that_commits_nothing(lab: Program, name: str) -> None:
    for answer in (call(lab, name, "fail"), lab.http.post(f"/{name}/fail", json={})):
        assert (answer.status_code, answer.json()["name"]) == (500, "ActorMethodError")
        assert answer.json()["cause"] == "ZeroDivisionError"
    assert call(lab, name, "count").json() == 0


def test_an_answer_names_the_request_and_the_epoch(lab: Program, name: str) -> None:
    first, second = call(lab, name, "add", Idempotency_Key="k"), call(lab, name, "add", Idempotency_Key="k")
    assert int(first.headers["kubeactor-epoch"]) == int(second.headers["kubeactor-epoch"]) >= 1
    assert first.headers["kubeactor-request-id"] != second.headers["kubeactor-request-id"]


def test_a_unique_id_is_called_by_its_digits(lab: Program) -> None:
    path = "/v1/ids/LAB/0123456789abcdef0123456789abcdef/add"
    assert [lab.http.post(path).json() for _ in range(2)] == [1, 2]
    assert call(lab, "0123456789abcdef0123456789abcdef", "add").json() == 1
    assert lab.http.post("/v1/ids/LAB/xyz/add").status_code == 400
