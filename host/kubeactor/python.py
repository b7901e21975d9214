"""Which Python it takes. This module and `__init__.py` have to be readable by older ones."""

from __future__ import annotations

import sys

__all__ = ["OLDEST", "refuse_old"]

OLDEST = (3, 11)
USAGE = 2


def refuse_old() -> None:
    """End the command line in one sentence, or raise ImportError, where Python is too old."""
    if sys.version_info >= OLDEST:
        return
    oldest, found = (".".join(map(str, one)) for one in (OLDEST, sys.version_info[:2]))
    text = f"kubeactor needs Python {oldest} or newer, this is {found}: make the environment with a newer one"
    started = getattr(sys, "orig_argv", [])  # since 3.10; before, a module that -m still looks for is "-m" itself
    if (
        sys.argv[0].endswith("kubeactor")
        or started[1:3] == ["-m", "kubeactor"]
        or (sys.argv[0] == "-m" and not started)
    ):
        sys.stderr.write(f"kubeactor: {text}\n")
        sys.exit(USAGE)
    raise ImportError(text)
