"""What a misspelt name was meant to be, for the end of a sentence."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["did_you_mean"]

CHARS = 64  # of a name that may come from outside: comparing takes time


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'debit'?` if one of the known names is near, else nothing."""
    import difflib

    known = list(known)
    near = difflib.get_close_matches(name[:CHARS], known, 1)
    if not near:  # `account` is ACCOUNT, though no letter is the same
        folded = {one.casefold(): one for one in known}
        near = [folded[one] for one in difflib.get_close_matches(name[:CHARS].casefold(), folded, 1)]
    return f"; did you mean {near[0]!r}?" if near else ""
