"""When to try again, and what counts: 1 s * 2^n, at most 5 min, +-25 %, ten counted attempts (contract, "Alarms")."""

from __future__ import annotations

import random

from kubeactor.errors import ActorError
from kubeactor.limits import RETRY_FIRST_S, RETRY_JITTER, RETRY_MAX_S

__all__ = ["backoff_s", "counts"]


def backoff_s(failures: int, jitter: float | None = None) -> float:
    """Seconds to wait after that many failures in a row, counted from 1.

    Args:
        jitter: -1..1 instead of a random one.
    """
    spread = random.uniform(-1, 1) if jitter is None else jitter
    return float(min(RETRY_FIRST_S * 2 ** min(failures - 1, 20), RETRY_MAX_S) * (1 + RETRY_JITTER * spread))


def counts(error: ActorError) -> bool:
    """Whether a failed attempt counts towards the ten: the user's code had its chance, or there is none for it.

    A refusal of the host's (full, fenced, quarantined, too late to start) says nothing about the message or alarm, and
    an unknown outcome must never end one.
    """
    return error.started == "yes" or (error.started == "no" and error.status < 500)
