"""`kubeactor check`: what would be served, told without serving it; an operator asks an image so beforehand."""

from __future__ import annotations

from importlib.metadata import version

import msgspec

from kubeactor.actor import ActorType
from kubeactor.application import Application
from kubeactor.engine.volume import FORMAT
from kubeactor.wire import VERSION

__all__ = ["Bound", "Report", "lines", "report", "version_line"]

HOOKS = ("activate", "alarm", "undelivered", "fetch")


class Bound(msgspec.Struct):
    """A binding.

    Attributes:
        cls: `module:Class`, "class" in JSON.
        methods: all names that reach one, sorted; hooks: those that the class has.
    """

    cls: str = msgspec.field(name="class")
    methods: list[str]
    hooks: list[str]


class Report(msgspec.Struct):
    """What was found.

    Attributes:
        version: of kubeactor; protocol: of the frames between processes; format: of the rows on a volume.
        bindings: by name.
        front_door: `module:app` as it was named, or None.
    """

    version: str
    protocol: int
    format: int
    bindings: dict[str, Bound]
    front_door: str | None


def report(application: Application, front_door: str | None) -> Report:
    """Of an application that was loaded, whose configuration is complete."""
    bindings = {name: _bound(found) for name, found in sorted(application.bindings.items())}
    return Report(version("kubeactor"), VERSION, FORMAT, bindings, front_door)


def _bound(found: ActorType) -> Bound:
    cls = found.cls
    has = (found.has_activate, found.has_alarm, found.has_undelivered, found.fetch is not None)
    hooks = [hook for hook, there in zip(HOOKS, has, strict=True) if there]
    return Bound(f"{cls.__module__}:{cls.__qualname__}", sorted(found.methods), hooks)


def lines(found: Report) -> list[str]:
    """As a person reads it."""
    told = [version_line()]
    for name, bound in found.bindings.items():
        told.append(f"{name}  {bound.cls}")
        told.append(f"  methods  {', '.join(bound.methods) or 'none'}")
        told += [f"  hooks    {', '.join(bound.hooks)}"] if bound.hooks else []
    return [*told, f"front door  {found.front_door or 'none'}"]


def version_line() -> str:
    """The version of kubeactor and those that processes and volumes are compared by."""
    return f"kubeactor {version('kubeactor')}, protocol {VERSION}, volume format {FORMAT}"
