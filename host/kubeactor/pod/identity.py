"""Who a pod is: the operator says it in the environment, the data folder does not."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from kubeactor.limits import ALARM_TIMEOUT_MAX_S, CALL_MAX_S, METHOD_TIMEOUT_S, SHARDS_MAX

__all__ = ["Pod", "PodError"]

PEER_DIR: Final = "/etc/kubeactor/peer"
NAME: Final = re.compile(r"[a-z](?:[-a-z0-9]{0,38}[a-z0-9])?")
DNS_LABEL: Final = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
UID: Final = re.compile(r"[-0-9A-Za-z]{1,64}")

T = TypeVar("T")


class PodError(Exception):
    """Raised when a process was not started as a pod of an ActorNamespace; one text that names all that is wrong."""


class Pod(NamedTuple):
    """One pod.

    Attributes:
        name: of the ActorNamespace.
        uid: of it; volumes, hellos and the table carry it.
        shards: of it.
        pod: the pod's own name; namespace: the Kubernetes namespace that it is in.
        host: the id in the placement table; None for an ingress.
        peer_dir: the folder of the shared secret.
        method_timeout_s, alarm_timeout_s: the budgets of turns.
        adopt: whether a volume of an earlier namespace of this name is taken over.
    """

    name: str
    uid: str
    shards: int
    pod: str
    namespace: str
    host: str | None
    peer_dir: Path
    method_timeout_s: float
    alarm_timeout_s: float
    adopt: bool

    @classmethod
    def of(cls, environ: Mapping[str, str], *, host: bool) -> Pod:
        """The pod that an environment describes.

        Args:
            environ: the process's.
            host: whether it is a host's, whose id is in the pod's name.

        Raises:
            PodError: when variables are missing or malformed.
        """
        read = _Reader(environ)
        name = read.text("KUBEACTOR_NAME", NAME, "the ActorNamespace's name")
        pod = cls(
            name=name,
            uid=read.text("KUBEACTOR_UID", UID, "the ActorNamespace's metadata.uid"),
            shards=read.value("KUBEACTOR_SHARDS", _shards, f"a number from 1 to {SHARDS_MAX}"),
            pod=read.text("POD_NAME", re.compile(r"[a-z0-9][-.a-z0-9]{0,252}"), "the pod's metadata.name"),
            namespace=read.text("POD_NAMESPACE", DNS_LABEL, "the pod's metadata.namespace"),
            host=None,
            peer_dir=Path(environ.get("KUBEACTOR_PEER_DIR", PEER_DIR)),
            method_timeout_s=read.seconds("KUBEACTOR_METHOD_TIMEOUT_S", CALL_MAX_S),
            alarm_timeout_s=read.seconds("KUBEACTOR_ALARM_TIMEOUT_S", ALARM_TIMEOUT_MAX_S),
            adopt=read.value("KUBEACTOR_ADOPT", _flag, "true or false", "false"),
        )
        if host and not read.wrong:
            found = host_of(name, pod.pod)
            if found is None:
                read.wrong.append(f"POD_NAME is {pod.pod!r}, and the hosts of {name} are named {name}-host-0 and so on")
            pod = pod._replace(host=found)
        if read.wrong:
            raise PodError(f"with --kubernetes the operator sets the environment: {'; '.join(read.wrong)}")
        return pod


def host_of(name: str, pod: str) -> str | None:
    """The host id of a pod of the namespace `name`; None when it is no host's."""
    match = re.fullmatch(rf"{re.escape(name)}-(host-(?:0|[1-9][0-9]{{0,5}}))", pod)
    return match[1] if match else None


class _Reader:
    """Reads variables, and collects what is wrong instead of stopping at the first."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.wrong: list[str] = []
        self._environ = environ

    def text(self, name: str, pattern: re.Pattern[str], what: str) -> str:
        found = self._environ.get(name, "")
        if not found:
            self.wrong.append(f"{name} is missing ({what})")
        elif not pattern.fullmatch(found):
            self.wrong.append(f"{name} is {found[:80]!r}, not {what}")
        return found

    def value(self, name: str, convert: Callable[[str], T], what: str, default: str = "") -> T:
        found = self._environ.get(name, default)
        try:
            return convert(found)
        except ValueError:
            self.wrong.append(f"{name} is {found[:80]!r}, not {what}" if found else f"{name} is missing ({what})")
            return convert(default or "1")

    def seconds(self, name: str, longest_s: float) -> float:
        def convert(text: str) -> float:
            found = float(text)
            if not 0 < found <= longest_s:
                raise ValueError(text)
            return found

        return self.value(name, convert, f"seconds above 0, at most {longest_s:g}", f"{METHOD_TIMEOUT_S:g}")


def _shards(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= SHARDS_MAX:
        raise ValueError(text)
    return int(text)


def _flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(text)
    return text == "true"
