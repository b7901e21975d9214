"""What a newcomer's first mistakes look like from inside, and the sentence that says what to write instead.

Most mistakes are answered where they are refused: at load, at the call, by the type checkers. These are the ones
that only show in what Python raises. docs/mistakes.md lists all of them.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["hint"]

# An exception's class, what its text says, and what to do.
_HINTS: Final = (
    (TypeError, r"'(coroutine|StubCall)'|coroutine object|object StubCall", "an `await` is missing in front of a call"),
    (
        TypeError,
        r"'NoneType'",
        'if it came from storage: get gives None for an absent key, so write get("key", 0) or Key("key", int, 0)',
    ),
    (AttributeError, r"'(coroutine|StubCall)' object", "an `await` is missing in front of a call"),
    (
        RuntimeError,
        r"asyncio\.run\(\) cannot be called|event loop is already running",
        "a method runs in a loop already: write `await` instead of running one",
    ),
)


def hint(raised: BaseException) -> str:
    """What to append to the text of what a method raised: `; ...`, or nothing."""
    text = str(raised)
    for cls, pattern, what in _HINTS:
        if type(raised) is cls and re.search(pattern, text):
            return f"; {what}"
    return ""
