# ruff: noqa: E501 (its lines are those of a page)
"""docs/errors.md, made from the tree of errors: `python -m tests.docs.errors_page` writes it anew."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Final

from kubeactor import errors
from kubeactor.errors import ActorError, Problem, StorageLimitError

__all__ = ["PAGE", "render"]

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "errors.md"

TEXT: Final = """# Errors

Made from `kubeactor/errors.py` by `make docs`; do not edit it here.

An error reaches an HTTP client as `application/problem+json` (RFC 9457), and an actor, a front door, the Python client and a
test as the same class. `name` is the class name, `detail` says in a sentence what happened, `request_id` finds it in the log.

| field | what it tells |
| --- | --- |
| `started` | whether the method of that call can have run. `no`: it has not, the call may be made again as it is. `yes`: it has. `unknown`: it may have; repeat it under its `Idempotency-Key`, which applies it once |
| `retryable` | whether the same call may succeed later. The ingress has repeated it already where that was safe; the Python client repeats it within its deadline |
| `overloaded` | whether a queue was full; wait for `Retry-After` |

## The tree
```text
{tree}
```

## Each of them
The values are those that the class starts with; an error that is raised may know better.

| error | status | retryable | started | raised | what to do |
| --- | --- | --- | --- | --- | --- |
{rows}

## Your own
`Problem` is {problem}. Any other exception that leaves a method is an `ActorMethodError`: its text stays in the host's log, since
it may tell what a client must not know; `kubeactor dev` and tests show it.
"""


def render() -> str:
    """The page's text."""
    kinds = [getattr(errors, name) for name in errors.__all__ if name not in ("ActorError", "Problem")]
    assert errors.__doc__ is not None
    tree = errors.__doc__.partition("\n\n")[2].strip()
    rows = "\n".join(_row(kind) for kind in sorted(kinds, key=lambda kind: (kind.status, kind.__name__)))
    problem = _paragraphs(Problem)[0]
    return TEXT.format(tree=tree, rows=rows, problem=_lower(problem).rstrip("."))


def _row(kind: type[ActorError]) -> str:
    raised, remedy = _paragraphs(kind)
    status = "413, 507" if kind is StorageLimitError else str(kind.status)
    cells = (f"`{kind.__name__}`", status, "yes" if kind.retryable else "no", kind.started)
    return f"| {' | '.join(cells)} | {raised.removeprefix('Raised ').rstrip('.')} | {remedy} |"


def _paragraphs(kind: type[ActorError]) -> tuple[str, str]:
    text = inspect.getdoc(kind)
    assert text is not None
    raised, remedy, *_ = [*text.split("\n\n"), ""]
    assert remedy, f"{kind.__name__} does not say what to do"
    return " ".join(raised.split()), " ".join(remedy.split())


def _lower(text: str) -> str:
    return text[0].lower() + text[1:]


if __name__ == "__main__":
    PAGE.write_text(render())
