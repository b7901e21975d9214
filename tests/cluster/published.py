"""Every version of kubeactor's objects that a cluster publishes, from the moment on at which the watch began.

One watch for each kind over all namespaces, by `kubectl get --raw`: it goes on after the last version that it saw, so
one that ends misses nothing. Only when the API server forgot that version, as it may when a CRD is changed, what is
there is read anew.
"""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Final
from urllib.parse import urlencode

from tests.cluster.kube import Kube, until
from tests.cluster.rules import Version, broken, restarts

__all__ = ["Published"]

LABEL: Final = "app.kubernetes.io/managed-by=kubeactor"
ENDS: Final = 100  # of a watch in a row without a word: something is wrong

# kind -> its path and the labels of ours; an ActorNamespace has the user's own
KINDS: Final = {
    "ActorNamespace": ("/apis/kubeactor.io/v1alpha1/actornamespaces", ""),
    "ActorPlacement": ("/apis/kubeactor.io/v1alpha1/actorplacements", LABEL),
    "StatefulSet": ("/apis/apps/v1/statefulsets", LABEL),
    "Pod": ("/api/v1/pods", LABEL),
    "PersistentVolumeClaim": ("/api/v1/persistentvolumeclaims", LABEL),
}


class Published:
    """The versions, in the order in which each kind's watch told of them.

    Attributes:
        by_hand: (namespace, number) of versions that a test wrote itself; given_up: (namespace, name) of claims that
            a test deleted itself.
    """

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._versions: list[Version] = []
        self._errors: list[str] = []
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._watching: dict[str, subprocess.Popen[str]] = {}
        self._threads = [threading.Thread(target=self._follow, args=(kind,), name=kind) for kind in KINDS]
        self.by_hand: set[tuple[str, int]] = set()
        self.given_up: set[tuple[str, str]] = set()

    def __enter__(self) -> Published:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        for process in list(self._watching.values()):
            process.terminate()
        for thread in self._threads:
            thread.join()

    def of(self, namespace: str, kind: str = "") -> list[Version]:
        """What was published so far in a Kubernetes namespace."""
        with self._changed:
            assert not self._errors, self._errors
            found = list(self._versions)
        return [one for one in found if one.place[0] == namespace and kind in ("", one.kind)]

    def until(
        self, namespace: str, kind: str, look: Callable[[Version], bool], what: str, timeout_s: float = 120
    ) -> None:
        """Wait until a version of that kind is as `look` wants it: told at once, so that a fault can be timed by it."""
        deadline, done = time.monotonic() + timeout_s, 0
        while True:
            with self._changed:
                assert not self._errors, self._errors
                new, done = self._versions[done:], len(self._versions)
                if any(one.kind == kind and one.place[0] == namespace and look(one) for one in new):
                    return
                if len(self._versions) == done and not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    raise AssertionError(f"not published within {timeout_s} s in {namespace}: {what}")

    def check(self, namespace: str, *, restarted_by_users: bool = False) -> None:
        """No version of that namespace's objects breaks a rule."""
        until(lambda: self._caught_up(namespace), f"all watches are up to date in {namespace}", 60)
        history = self.of(namespace)
        found = broken(
            history,
            by_hand={number for place, number in self.by_hand if place == namespace},
            given_up={name for place, name in self.given_up if place == namespace},
        )
        assert not found, "\n".join(found)
        if not restarted_by_users:
            assert not (found := restarts(history)), "\n".join(found)

    def _caught_up(self, namespace: str) -> bool:
        last = {(one.kind, one.uid): one for one in self.of(namespace)}
        seen = {key: one.number for key, one in last.items() if not one.deleted}
        live = {}
        for kind, (path, labels) in KINDS.items():
            group, _, plural = path.rpartition("/")
            for item in self._list(f"{group}/namespaces/{namespace}/{plural}", labels)["items"]:
                live[kind, item["metadata"]["uid"]] = int(item["metadata"]["resourceVersion"])
        return seen == live

    def _list(self, path: str, labels: str) -> Any:
        query = urlencode({"labelSelector": labels})
        return json.loads(self._kube.kubectl("get", "--raw", f"{path}?{query}"))

    def _follow(self, kind: str) -> None:
        try:
            self._record(kind)
        except Exception as error:
            with self._changed:
                self._errors.append(f"the watch of {kind}: {error!r}")
                self._changed.notify_all()

    def _record(self, kind: str) -> None:
        version, quiet = self._listed(kind), 0
        while not self._stop.is_set():
            assert quiet < ENDS, f"it ended {quiet} times in a row"
            quiet += 1
            for event in self._events(kind, version):
                if event["type"] == "ERROR":
                    assert event["object"]["reason"] == "Expired", event
                    version = self._listed(kind)
                    break
                quiet, version = 0, event["object"]["metadata"]["resourceVersion"]
                if event["type"] != "BOOKMARK":
                    self._add([Version(event["type"], event["object"])])
            self._stop.wait(0.2)

    def _listed(self, kind: str) -> str:
        """Record what is there, and what is there no more; the version to go on after."""
        listed = self._list(*KINDS[kind])
        typed = {"kind": kind, "apiVersion": listed["apiVersion"]}
        there = {item["metadata"]["uid"]: Version("MODIFIED", typed | item) for item in listed["items"]}
        with self._changed:
            known = {one.uid: one for one in self._versions if one.kind == kind}
        new = [
            one if uid in known else one._replace(event="ADDED")
            for uid, one in there.items()
            if uid not in known or known[uid].number != one.number
        ]
        gone = [one._replace(event="DELETED") for uid, one in known.items() if uid not in there and not one.deleted]
        self._add(new + gone)
        return str(listed["metadata"]["resourceVersion"])

    def _events(self, kind: str, version: str) -> Iterator[Any]:
        path, labels = KINDS[kind]
        query = {"watch": "1", "allowWatchBookmarks": "true", "labelSelector": labels, "resourceVersion": version}
        with self._kube.start("get", "--raw", f"{path}?{urlencode(query)}") as process:
            self._watching[kind] = process
            if self._stop.is_set():
                process.terminate()
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    if not line.endswith("\n"):
                        return  # cut off in the middle: it comes again
                    yield json.loads(line)
            finally:
                process.terminate()

    def _add(self, versions: list[Version]) -> None:
        with self._changed:
            self._versions += versions
            self._changed.notify_all()
