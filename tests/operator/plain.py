"""Objects of the API as plain dictionaries: copied, and with fields merged into them."""

from __future__ import annotations

from typing import Any

import msgspec

from kubeactor_operator.observed import Object

__all__ = ["copied", "merge"]


def copied(value: Any) -> Any:
    """All the way down, several times faster than by copy.deepcopy."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(value))


def merge(target: Object, fields: Object) -> None:
    """As a merge patch does."""
    for key, value in fields.items():
        if isinstance(value, dict) and isinstance(target.get(key), dict):
            merge(target[key], value)
        else:
            target[key] = copied(value)
