"""The client of `helm test`: deposits 100 and debits 30, through the ingress, until the deadline.

usage: debit.py URL DEADLINE_SECONDS. A repeat keeps its Idempotency-Key, so it is applied once, however often sent.
"""

from __future__ import annotations

import http.client
import sys
import time
import urllib.error
import urllib.request
import uuid

PAUSE_S = 1.0
ANSWER_S = 10.0


def call(url: str, method: str, amount: int, end: float) -> int:
    """Call it until it is answered with 200, and give the answer.

    Raises:
        SystemExit: when that did not happen in time, with what was answered last.
    """
    last: object = None
    request = urllib.request.Request(  # noqa: S310 (the chart gives an http address)
        f"{url}/v1/actors/ACCOUNT/alice/{method}",
        data=b'{"amount": %d}' % amount,
        headers={"Content-Type": "application/json", "Idempotency-Key": uuid.uuid4().hex},
    )
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:  # noqa: S310
                return int(answer.read(64))
        except urllib.error.HTTPError as error:
            last = f"{error.code} {error.read(1000).decode(errors='replace')}"
        except (OSError, http.client.HTTPException) as error:
            last = repr(error)
        time.sleep(PAUSE_S)
    sys.exit(f"{method} was not answered in time, at last: {last}")


def main(url: str, deadline_s: str) -> None:
    """Run it. Raises SystemExit when the balance is not what it must be."""
    end = time.monotonic() + float(deadline_s)
    before = call(url, "deposit", 100, end)
    after = call(url, "debit", 30, end)
    if after != before - 30:
        sys.exit(f"a debit of 30 left {after} of {before}")
    print(f"deposited 100, debited 30: {after} left")  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
