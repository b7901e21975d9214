"""Whether to try a call again, and after which pause. Plain data and a clock; both clients sleep by it.

A call keeps its Idempotency-Key over all attempts, so an attempt whose fate is unknown may be repeated: if it was
carried out, the next one gets its recorded result.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from typing import Final

from kubeactor.errors import ActorError, ActorMethodTimeoutError
from kubeactor.limits import CALL_MAX_S

__all__ = ["GRACE_S", "Attempts", "LostAttemptError", "checked_timeout_s"]

FIRST_PAUSE_S: Final = 0.05
MAX_PAUSE_S: Final = 1.0
# The host answers a missed deadline itself, with what it knows of the call: that answer is waited for.
GRACE_S: Final = 0.5


class LostAttemptError(Exception):
    """Raised inside a client when an attempt got no answer.

    Attributes:
        sent: whether a byte of it can have left; otherwise nothing was started.
    """

    def __init__(self, reason: str, *, sent: bool) -> None:
        super().__init__(reason)
        self.sent = sent


class Attempts:
    """The attempts of one call within its deadline.

    Args:
        label: of the call, for messages.
        timeout_s: from now until the deadline.
        clock: monotonic, in seconds; uniform: a random number between two bounds.
    """

    __slots__ = ("_clock", "_count", "_deadline", "_label", "_maybe_started", "_timeout_s", "_uniform")

    def __init__(
        self,
        label: str,
        timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._label = label
        self._timeout_s = timeout_s
        self._clock = clock
        self._uniform = uniform
        self._deadline = clock() + timeout_s
        self._count = 0
        self._maybe_started = False

    def remaining_s(self) -> float:
        """Seconds until the deadline, at least a little: whoever asks is about to wait for so long."""
        return max(self._deadline - self._clock(), 0.001)

    def header(self) -> bytes:
        """`Kubeactor-Timeout` for the attempt that is about to be sent.

        Rounded up to a tenth, so that the first attempts of all calls have the same head, which an ingress remembers.
        """
        return b"%.1f" % (math.ceil(self.remaining_s() * 10) / 10)

    def after_loss(self, error: LostAttemptError) -> float:
        """The pause in seconds after an attempt without an answer.

        Raises:
            ActorMethodTimeoutError: when no time is left for another.
        """
        self._maybe_started |= error.sent
        pause_s = self._pause_s()
        if pause_s < self._deadline - self._clock():
            return pause_s
        raise ActorMethodTimeoutError(
            f"{self._label}: no answer within {self._timeout_s:g} s; the last of {self._count} attempts: {error}",
            started="unknown" if self._maybe_started else "no",
        ) from error

    def after_error(self, error: ActorError) -> float:
        """The pause in seconds after an answer that is an error.

        Raises:
            ActorError: this error, when it is final or no time is left for another attempt. It says `started: "no"`
                only if that holds for all attempts.
        """
        if self._maybe_started and error.started == "no":
            error.started = "unknown"
        self._maybe_started |= error.started != "no"
        if error.retryable:
            # Jitter on top: those who were refused together must not come back together.
            pause_s = max(self._pause_s(), (error.retry_after_s or 0) * self._uniform(1.0, 1.25))
            if pause_s < self._deadline - self._clock():
                return pause_s
        raise error

    def _pause_s(self) -> float:
        longest_s = min(MAX_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(self._count, 30))
        self._count += 1
        return self._uniform(longest_s / 2, longest_s)


def checked_timeout_s(timeout_s: float) -> float:
    """The time limit of a client's calls.

    Raises:
        ValueError: when it is not above 0 and at most 300 seconds.
    """
    if not (isinstance(timeout_s, int | float) and 0 < timeout_s <= CALL_MAX_S):
        raise ValueError(f"timeout_s is more than 0 and at most {CALL_MAX_S:.0f} seconds, not {timeout_s!r}")
    return float(timeout_s)
