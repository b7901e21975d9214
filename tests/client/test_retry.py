"""Pauses and deadlines, on a clock of the tests' own."""

from __future__ import annotations

import pytest

from kubeactor import ActorMethodTimeoutError, ActorOverloadedError, ActorShardUnavailableError, Problem
from kubeactor.client.retry import MAX_PAUSE_S, Attempts, LostAttemptError, checked_timeout_s


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def shortest(low: float, high: float) -> float:
    return low


def longest(low: float, high: float) -> float:
    return high


def attempts(clock: Clock, timeout_s: float = 60.0, uniform: object = longest) -> Attempts:
    return Attempts("TILL/a.add", timeout_s, clock, uniform)  # type: ignore[arg-type]


LOST = LostAttemptError("ReadError", sent=True)
REFUSED = LostAttemptError("ConnectError: refused", sent=False)


def test_pauses_double_up_to_a_second_with_jitter(clock: Clock) -> None:
    slow, quick = attempts(clock), attempts(clock, uniform=shortest)
    assert [slow.after_loss(LOST) for _ in range(7)] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert [quick.after_loss(LOST) for _ in range(7)] == [0.025, 0.05, 0.1, 0.2, 0.4, 0.5, 0.5]


def test_thousands_of_attempts_overflow_nothing(clock: Clock) -> None:
    tried = attempts(clock)
    assert [tried.after_loss(LOST) for _ in range(5000)][-1] == MAX_PAUSE_S


@pytest.mark.parametrize(("lost", "started"), [([REFUSED, LOST, REFUSED], "unknown"), ([REFUSED, REFUSED], "no")])
def test_the_deadline_ends_the_attempts_and_tells_whether_one_was_sent(
    clock: Clock, lost: list[LostAttemptError], started: str
) -> None:
    tried = attempts(clock, 10.0)
    for error in lost[:-1]:
        tried.after_loss(error)
    clock.now += 9.999
    with pytest.raises(
        ActorMethodTimeoutError, match=r"TILL/a.add: no answer within 10 s; the last of .*: Conn"
    ) as raised:
        tried.after_loss(lost[-1])
    assert raised.value.started == started
    assert raised.value.__cause__ is lost[-1]


def test_what_is_retryable_is_repeated_after_what_it_asks_for(clock: Clock) -> None:
    error = ActorOverloadedError("full", retry_after_s=4)
    assert attempts(clock, uniform=shortest).after_error(error) == 4.0
    assert attempts(clock).after_error(error) == 5.0  # and a quarter more at most
    assert attempts(clock).after_error(ActorOverloadedError("full", retry_after_s=None)) == 0.05


def test_a_pause_that_ends_after_the_deadline_is_not_waited_for(clock: Clock) -> None:
    error = ActorShardUnavailableError("moved", retry_after_s=5)
    with pytest.raises(ActorShardUnavailableError) as raised:
        attempts(clock, 4.0).after_error(error)
    assert raised.value is error


def test_what_is_final_is_raised_at_once(clock: Clock) -> None:
    with pytest.raises(Problem, match="no"):
        attempts(clock).after_error(Problem("no"))


def test_no_means_that_no_attempt_can_have_started(clock: Clock) -> None:
    refused = ActorOverloadedError("full")
    tried = attempts(clock, 3.0)
    tried.after_loss(REFUSED)
    tried.after_error(refused)
    assert refused.started == "no"
    tried.after_loss(LOST)
    clock.now += 2.9
    with pytest.raises(ActorOverloadedError) as raised:
        tried.after_error(refused)
    assert raised.value.started == "unknown"


def test_the_header_is_the_same_for_the_first_attempts_of_all_calls(clock: Clock) -> None:
    tried = attempts(clock)
    assert tried.header() == b"60.0"
    clock.now += 0.09
    assert tried.header() == b"60.0"
    clock.now += 1.0
    assert tried.header() == b"59.0"
    clock.now += 100.0
    assert tried.header() == b"0.1"
    assert tried.remaining_s() > 0


@pytest.mark.parametrize("wrong", [0, -1, 301, float("nan"), float("inf"), "3", None])
def test_a_time_limit_out_of_bounds_is_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match="more than 0 and at most 300 seconds"):
        checked_timeout_s(wrong)  # type: ignore[arg-type]
    assert checked_timeout_s(300) == 300.0
