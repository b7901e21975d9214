"""The tree of errors: what travels, and comes back as the same class."""

from __future__ import annotations

from typing import Any

import pytest

import kubeactor.errors as errors
from kubeactor import ActorError, Problem


class ShortOfMoney(Problem):
    status = 409
    balance: int
    currency: str = "EUR"


class PoorerStill(ShortOfMoney):
    depth: int


BUILT_IN = [
    cls
    for cls in vars(errors).values()
    if isinstance(cls, type) and issubclass(cls, ActorError) and cls.__module__ == "kubeactor.errors"
]


@pytest.mark.parametrize("cls", BUILT_IN)
def test_every_error_says_when_it_is_raised_and_comes_back_as_itself(cls: type[ActorError]) -> None:
    assert cls.__doc__
    assert cls.__name__ in errors.__all__
    error = cls("why", request_id="r1", instance="ACCOUNT/a", epoch=3) if cls is not Problem else cls("why")
    back = travelled(error)
    assert type(back) is cls
    assert (back.detail, back.retryable, back.overloaded, back.started) == (
        error.detail,
        error.retryable,
        error.overloaded,
        error.started,
    )
    assert (back.request_id, back.instance, back.epoch) == (error.request_id, error.instance, error.epoch)
    assert 400 <= cls.status <= 599


def travelled(error: ActorError) -> ActorError:
    return errors.from_document(errors.to_document(error))


def test_a_problem_travels_with_its_members_and_its_status() -> None:
    back = travelled(PoorerStill("no", balance=3, depth=2))
    assert isinstance(back, PoorerStill)
    assert (back.balance, back.depth, back.currency, back.http_status()) == (3, 2, "EUR", 409)
    assert back.name == "PoorerStill"


def test_a_problem_with_missing_or_unknown_members_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="needs balance"):
        ShortOfMoney("no")
    with pytest.raises(TypeError, match="no member 'colour'"):
        ShortOfMoney("no", balance=1, colour="red")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"status": 500}, "400..499"),
        ({"status": "409"}, "400..499"),
        ({"__annotations__": {"detail": "str"}}, "is a field of every problem"),
    ],
)
def test_a_problem_class_that_cannot_travel_is_refused_when_it_is_declared(body: dict[str, Any], said: str) -> None:
    with pytest.raises(TypeError, match=said):
        type("Bad", (Problem,), body)


def test_a_problem_may_not_take_the_name_of_an_error_of_ours() -> None:
    with pytest.raises(TypeError, match="error of kubeactor itself"):
        type("CodecError", (Problem,), {})


def test_a_full_disk_is_507_and_another_bound_413() -> None:
    assert errors.StorageLimitError("x").http_status() == 413
    assert travelled(errors.StorageLimitError("x", disk=True)).http_status() == 507


def test_a_method_error_carries_the_class_of_its_cause() -> None:
    back = travelled(errors.ActorMethodError("x", cause="ValueError"))
    assert isinstance(back, errors.ActorMethodError)
    assert back.cause == "ValueError"
