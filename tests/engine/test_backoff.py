"""When to try again, and which failures count."""

from __future__ import annotations

import pytest

from kubeactor import Problem
from kubeactor.engine.backoff import backoff_s, counts
from kubeactor.errors import (
    ActorArgumentError,
    ActorError,
    ActorFencedError,
    ActorMethodError,
    ActorMethodTimeoutError,
    ActorOutputGateError,
    ActorOverloadedError,
    ActorQuarantinedError,
    ActorReentrancyError,
    ActorShardUnavailableError,
    ActorUnknownBindingError,
    ActorUnknownMethodError,
)


class NotToday(Problem):
    status = 409


def test_waits_double_from_one_second_to_five_minutes() -> None:
    assert [backoff_s(n, jitter=0) for n in range(1, 12)] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    assert backoff_s(10**6, jitter=0) == 300


def test_waits_are_spread_by_a_quarter() -> None:
    assert (backoff_s(1, jitter=-1), backoff_s(1, jitter=1)) == (0.75, 1.25)
    found = [backoff_s(4) for _ in range(200)]
    assert 6 <= min(found) < 7 < 9 < max(found) <= 10


@pytest.mark.parametrize(
    "error",
    [
        NotToday("no"),
        ActorMethodError("raised", cause="KeyError"),
        ActorMethodTimeoutError("used up its budget"),
        ActorUnknownMethodError("gone"),
        ActorUnknownBindingError("gone"),
        ActorArgumentError("changed"),
        ActorReentrancyError("a circle"),
        ActorOverloadedError("of a call that the handler made", started="yes"),
        ActorFencedError("code of the handler's own that was left over", started="yes"),
    ],
    ids=lambda error: error.name,
)
def test_failures_of_the_users_code_count(error: ActorError) -> None:
    assert counts(error)


@pytest.mark.parametrize(
    "error",
    [
        ActorOverloadedError("full"),
        ActorFencedError("going down"),
        ActorShardUnavailableError("away"),
        ActorQuarantinedError("three times"),
        ActorOutputGateError("not known"),
        ActorMethodTimeoutError("waited too long", started="no"),
        ActorMethodTimeoutError("no answer", started="unknown"),
        ActorMethodError("not activated yet", cause="ActivationBackoff", started="no"),
    ],
    ids=lambda error: error.name,
)
def test_refusals_of_the_host_and_unknown_outcomes_do_not_count(error: ActorError) -> None:
    assert not counts(error)
