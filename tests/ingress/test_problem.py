"""Errors as responses."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from kubeactor import errors
from kubeactor.errors import ActorError, ActorMethodError, ActorOverloadedError, Problem, StorageLimitError, from_wire
from kubeactor.ingress.problem import problem_of, result_of, unexpected


class OverTheLimit(Problem):
    status = 409
    balance: int
    rate: Decimal = Decimal("0.1")


def document(error: ActorError, **options: Any) -> tuple[int, dict[bytes, bytes], dict[str, Any]]:
    answer = problem_of(error, request_id="r1", **options)
    headers = dict(answer.headers)
    assert headers[b"content-length"] == b"%d" % len(answer.body)
    assert headers[b"content-type"] == b"application/problem+json"
    return answer.status, headers, json.loads(answer.body)


def test_a_problem_of_the_user_keeps_its_name_status_and_members() -> None:
    status, headers, body = document(OverTheLimit("30 is more than 5", balance=5), instance="ACCOUNT/a", epoch=3)
    assert status == body["status"] == 409
    assert body["name"] == "OverTheLimit"
    assert (body["balance"], body["rate"], body["detail"]) == (5, "0.1", "30 is more than 5")
    assert (body["instance"], body["epoch"], body["request_id"]) == ("ACCOUNT/a", 3, "r1")
    assert (headers[b"kubeactor-epoch"], headers[b"kubeactor-request-id"]) == (b"3", b"r1")
    assert isinstance(from_wire(body), OverTheLimit)


def test_a_member_that_json_does_not_know_becomes_its_text() -> None:
    class Odd(Problem):
        what: Any

    odd = Odd("no", what=1)
    odd.what = 1 + 2j  # past the check of the constructor
    assert document(odd)[2]["what"] == "(1+2j)"


def test_what_an_error_says_of_itself_stays() -> None:
    error = ActorMethodError("failed", instance="CART/x", epoch=9, request_id="inner", cause="KeyError")
    _, headers, body = document(error, instance="ACCOUNT/a", epoch=3)
    assert (body["instance"], body["epoch"], body["request_id"], body["cause"]) == ("CART/x", 9, "inner", "KeyError")
    assert (headers[b"kubeactor-epoch"], headers[b"kubeactor-request-id"]) == (b"3", b"r1")


def test_retry_after_is_whole_seconds() -> None:
    assert document(ActorOverloadedError("full"))[1][b"retry-after"] == b"1"
    assert document(ActorOverloadedError("full", retry_after_s=0.2))[1][b"retry-after"] == b"1"
    assert b"retry-after" not in document(ActorMethodError("failed"))[1]


def test_a_full_disk_is_507_and_another_bound_of_storage_413() -> None:
    assert document(StorageLimitError("full", disk=True))[0] == 507
    assert document(StorageLimitError("too large"))[0] == 413


def test_http_s_own_refusals_take_an_error_s_form() -> None:
    status, headers, body = document(errors.ActorUnknownMethodError("POST it"), status=405, allow="POST")
    assert (status, body["status"], headers[b"allow"]) == (405, 405, b"POST")
    assert b"kubeactor-epoch" not in headers


@pytest.mark.parametrize("name", [name for name in errors.__all__ if name not in ("ActorError", "Problem")])
def test_every_error_has_a_response_of_its_class_s_status(name: str) -> None:
    error = getattr(errors, name)("why")
    status, _, body = document(error)
    assert (body["name"], status) == (name, error.http_status())
    assert body["started"] in ("yes", "no", "unknown")
    assert type(from_wire(body)) is type(error)


def test_an_unexpected_exception_shows_its_text_under_dev_only() -> None:
    told = unexpected(ValueError("secret"), dev=False)
    assert "secret" not in document(told)[2]["detail"]
    assert document(told)[2]["cause"] == "ValueError"
    assert "secret" in unexpected(ValueError("secret"), dev=True).detail


def test_a_result_s_headers() -> None:
    answer = result_of(b"null", request_id="r", epoch=4)
    assert (answer.status, dict(answer.headers)[b"content-length"], answer.body) == (200, b"4", b"null")
