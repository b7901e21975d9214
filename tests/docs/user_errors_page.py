# ruff: noqa: E501 (its lines are those of a page)
"""docs/user-errors.md, made from what the tests try and from the reasons: `python -m tests.docs.user_errors_page`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml
from tests.operator.user_errors import ALWAYS, CONDITIONS, GONE, MENDS, UPDATES, Mistake

from kubeactor_operator.conditions import REASONS

__all__ = ["PAGE", "render"]

ROOT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = ROOT / "docs" / "user-errors.md"

TEXT: Final = """# What can be wrong with an ActorNamespace

Made from the tests and `kubeactor_operator/conditions.py` by `make docs`; do not edit it here.

The API server refuses what it can see to be wrong, when it is applied: nothing is stored, `kubectl` prints the sentence, and what
runs goes on. The rest is found out by the operator, and ends in a condition with a reason and a sentence that says what to change,
and in an Event (`kubectl describe actorns bank`); what runs goes on with the last good template. Every field:
[kubernetes-spec.md](kubernetes-spec.md).

## Refused by admission
| mistake | for example | the answer says | how to mend it |
| --- | --- | --- | --- |
{refused}

## Reported by a condition
| mistake | condition | what it means | how to mend it |
| --- | --- | --- | --- |
{reported}
"""


def render() -> str:
    """The page's text."""
    first: dict[str, Mistake] = {}
    for mistake in [*ALWAYS, *UPDATES]:
        first.setdefault(mistake.title, mistake)
    refused = "\n".join(_refused(mistake) for mistake in first.values())
    return TEXT.format(refused=refused, reported="\n".join(_reported(*one) for one in CONDITIONS.items()))


def _refused(mistake: Mistake) -> str:
    example = ", ".join(f"`{path}: {_short(value)}`" for path, value in mistake.changes.items() if value is not GONE)
    removed = ", ".join(f"no `{path}`" for path, value in mistake.changes.items() if value is GONE)
    both = ", ".join(part for part in (example, removed) if part)
    return f"| {mistake.title} | {both} | {_sentence(mistake)} | {MENDS[mistake.title]} |"


def _short(value: Any) -> str:
    own = json.loads(json.dumps(value))  # else YAML writes equal parts as references
    text = yaml.safe_dump(own, default_flow_style=True, width=1000).removesuffix("...\n").strip()
    return text if len(text) < 60 else text[:50] + " ..."


def _sentence(mistake: Mistake) -> str:
    """The whole message of the rule, or what the API server says of a bound."""
    return next((message for message in MESSAGES if mistake.says in message), f"`{mistake.says}`")


def _messages(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        yield from (rule["message"] for rule in node.get("x-kubernetes-validations", ()))
        for child in node.values():
            yield from _messages(child)


def _reported(title: str, name: str) -> str:
    reason = REASONS[name]
    return f"| {title} | `{reason.type}={reason.status}`, `{name}` | {reason.meaning} | {reason.mend} |"


MESSAGES: Final = list(
    _messages(yaml.safe_load((ROOT / "crds" / "actornamespaces.yaml").read_text())["spec"]["versions"][0])
)


if __name__ == "__main__":
    PAGE.write_text(render())
