"""A cluster of plain dictionaries, for the plan alone: API server, StatefulSet controller, kubelet, hosts, ingresses.

It refuses what an API server refuses, and asserts at every action what must never happen:
- the operator takes a serving host down only while all others serve;
- a grant never begins a shard empty that anybody ever owned, unless the user gave that data up;
- a published table never gives a shard to a host whose volume does not hold it at that epoch;
- epochs of what was published never fall, as long as nobody but the operator writes the table.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
from tests.operator.plain import copied, merge

from kubeactor.engine.claims import judge
from kubeactor.placement import FORMAT, Document, Table
from kubeactor.pod.commands import wish
from kubeactor.pod.identity import Pod
from kubeactor.pod.view import View
from kubeactor_operator import names
from kubeactor_operator.actions import Action, Apply, Create, Delete, Grant, Mark, Patch, Plan, Replace, Tell
from kubeactor_operator.children.manifest import digest
from kubeactor_operator.children.sources import peer_credentials
from kubeactor_operator.live import condition, timestamp
from kubeactor_operator.observed import Disk, Inventory, Known, Object, Observed, Probe, Silent
from kubeactor_operator.plan import plan
from kubeactor_operator.spec import ActorNamespace

STOCK = "kubeactor/host:0.1.0"


class Refused(Exception):
    """The API server says no: 409."""


@dataclass
class Volume:
    """What lies on a disk."""

    id: str
    namespace: str
    states: dict[int, int] = field(default_factory=dict)


class Cluster:
    """One ActorNamespace `bank` and everything around it. `settle` runs operator and world until nothing changes."""

    def __init__(self, spec: Mapping[str, Any] | None = None, seed: int = 0) -> None:
        self.random = random.Random(seed)
        self.now = 1_000_000.0
        self.version = 0
        self.objects: dict[tuple[str, str], Object] = {}
        self.volumes: dict[str, Volume] = {}  # by claim uid
        self.bad_images: set[str] = set()  # their preflight fails
        self.crashing: set[str] = set()  # templates by image on which hosts end
        self.silent: set[str] = set()  # hosts and ingresses that the operator does not reach
        self.hung: set[str] = set()  # hosts that answer nobody
        self.dark: set[str] = set()  # those of them whose node has no power
        self.missing_nodes: set[str] = set()  # hosts whose volume no node reaches
        self.full: set[str] = set()
        self.cut: set[str] = set()  # hosts that no ingress reaches
        self.shut: set[str] = set()  # hosts whose volume is too full to be opened
        self.used_bytes = 2**30 - 2**20  # of each volume of 1 GiB
        self.looping: set[str] = set()  # hosts whose container ends again and again
        self.unpullable: set[str] = set()
        self.unschedulable = "0/3 nodes are available: 3 node(s) had volume node affinity conflict."
        self.ingress_down = False
        self.unrouted = False  # the Service leads to no ingress
        self.expandable = True
        self.refuse: Callable[[Action], tuple[int, str] | None] = lambda action: None
        self.probes: dict[str, Probe] = {}
        self.refusals: dict[str, tuple[int, str, str]] = {}
        self.table_written_at = 0.0
        self.views: dict[str, View] = {}  # of hosts and ingresses: how they take each table
        self.deaf: set[str] = set()  # those that the API server does not reach
        self.fresh = "secret"  # the next credential
        self.read: dict[str, tuple[str, str]] = {}  # the credentials that a host or ingress has read
        self.wiped: set[int] = set()  # shards whose data is gone
        self.given_up: set[int] = set()
        self.forgotten: set[str] = set()  # hosts that the user gave up
        self.recorded: set[str] = set()  # volumes that a published table gave shards to
        self.served: set[int] = set()  # shards that ever had an owner in a published table
        self.earlier: set[int] = set()  # the same of an earlier namespace, whose volumes the operator has not seen yet
        self.published: dict[int, int] = {}
        self.events: list[Tell] = []
        self.writes = 0
        self.apply_spec(dict(spec or {}))

    # The user ------------------------------------------------------------------------------------------------------

    def apply_spec(self, spec: Mapping[str, Any], name: str = "bank") -> None:
        base = {"actors": [{"binding": "ACCOUNT", "class": "bank:Account"}], "shards": 8}
        live = self.objects.get((names.KIND, name))
        merged = {**(live["spec"] if live else base), **spec}
        if live:
            if live["spec"] != merged:
                live["spec"] = merged
                live["metadata"]["generation"] += 1
                self._bump(live)
            return
        self.put({"kind": names.KIND, "metadata": {"name": name, "generation": 1}, "spec": merged, "status": {}})

    def annotate(self, **annotations: str | None) -> None:
        live = self.namespace
        known = live["metadata"].setdefault("annotations", {})
        for key, value in annotations.items():
            name = f"kubeactor.io/{key}"
            known.pop(name, None)
            if value is not None:
                known[name] = value
        self._bump(live)

    def forget(self, host: str) -> None:
        """`kubeactor forget bank HOST --accept-data-loss`."""
        live = self.objects[(names.PLACEMENT_KIND, "bank")]
        assert self.table
        self.forgotten.add(host)
        self.annotate(**{f"forget-{host}": wish(self.table, live["metadata"]["uid"], host)})

    def recreate(self) -> None:
        """Delete the ActorNamespace with its children, keep the claims, apply it again."""
        body = self.namespace
        self.collect(body["metadata"]["uid"])
        del self.objects[(names.KIND, "bank")]
        self.tick(5)
        self.put(
            {"kind": names.KIND, "metadata": {"name": "bank", "generation": 1}, "spec": body["spec"], "status": {}}
        )
        self.probes, self.refusals, self.published, self.views = {}, {}, {}, {}
        self.earlier, self.served = self.earlier | self.served, set()

    @property
    def namespace(self) -> Object:
        return self.objects[(names.KIND, "bank")]

    @property
    def status(self) -> Object:
        found: Object = self.namespace["status"]
        return found

    def condition(self, type: str) -> tuple[str, str]:
        found = condition(self.namespace, type)
        return found.get("status", ""), found.get("reason", "")

    @property
    def table(self) -> Table | None:
        live = self.objects.get((names.PLACEMENT_KIND, "bank"))
        readable = live and live["spec"]["format"] == FORMAT
        return Table.of(msgspec.convert(live["spec"], Document)) if live and readable else None

    def claim(self, host: str) -> Object:
        return self.objects[("PersistentVolumeClaim", f"data-bank-{host}")]

    def volume(self, host: str) -> Volume:
        return self.volumes[self.claim(host)["metadata"]["uid"]]

    def wipe(self, host: str) -> None:
        """Its volume is replaced by an empty one, and the pod that is on it."""
        self._gone(self.volume(host), host)
        uid = self.namespace["metadata"]["uid"]
        self.version += 1
        self.volumes[self.claim(host)["metadata"]["uid"]] = Volume(f"{self.version:08x}", uid)

    def lose(self, host: str) -> None:
        """Its claim is deleted by hand, and its pod, so that there will be another one."""
        self._gone(self.volumes.get(self.claim(host)["metadata"]["uid"]), host)
        self.remove(("PersistentVolumeClaim", f"data-bank-{host}"))
        self.remove(("Pod", f"bank-{host}"))

    def _gone(self, volume: Volume | None, host: str) -> None:
        self.views.pop(host, None)  # what it knows lies there too
        if volume and volume.states:
            self.wiped |= volume.states.keys()
            wish = self.namespace["metadata"].get("annotations", {}).get(f"{names.FORGET}{host}", "")
            if volume.id in self.recorded and wish.partition(":")[0] != volume.id:
                self.forgotten.discard(host)  # what was given up before is not what is lost now

    def pod(self, host: str) -> Object:
        return self.objects[("Pod", f"bank-{host}")]

    # The API server ------------------------------------------------------------------------------------------------

    def put(self, manifest: Object) -> Object:
        key = (manifest["kind"], manifest["metadata"]["name"])
        if key in self.objects:
            raise Refused(f"{key} exists")
        live = copied(manifest)
        live.setdefault("apiVersion", "v1")
        live["metadata"] |= {"namespace": "default", "uid": f"uid-{self.version + 1}"}
        live["metadata"]["creationTimestamp"] = timestamp(self.now)
        live["metadata"].setdefault("generation", 1)
        if live["kind"] == "Pod":
            live.setdefault("status", {"phase": "Pending"})
        self.objects[key] = live
        self._bump(live)
        return live

    def _bump(self, live: Object) -> None:
        self.version += 1
        live["metadata"]["resourceVersion"] = str(self.version)

    def _at(self, observed: Object) -> Object:
        live = self.objects.get((observed["kind"], observed["metadata"]["name"]))
        meta = observed["metadata"]
        if live is None or live["metadata"]["uid"] != meta["uid"]:
            raise Refused("gone")
        if live["metadata"]["resourceVersion"] != meta["resourceVersion"]:
            raise Refused("stale")
        return live

    def remove(self, key: tuple[str, str]) -> None:
        live = self.objects.pop(key, None)
        if live:
            self.collect(live["metadata"]["uid"])

    def collect(self, uid: str) -> None:
        for key, live in list(self.objects.items()):
            if any(one["uid"] == uid for one in live["metadata"].get("ownerReferences", [])):
                self.remove(key)

    # The operator --------------------------------------------------------------------------------------------------

    def observe(self) -> Observed:
        objects = copied(self.objects)
        body = objects.pop((names.KIND, "bank"))
        pods = tuple(one for (kind, _), one in objects.items() if kind == "Pod")
        inventories = {
            h: found
            for one in pods
            if (h := names.host_id("bank", one["metadata"]["name"]))
            if one["status"].get("podIP")
            if (found := self._inventory(h, one))
        }
        return Observed(
            now=self.now,
            namespace=ActorNamespace.of(body),
            status=body["status"],
            resource_version=body["metadata"]["resourceVersion"],
            children=objects,
            pods=pods,
            claims=tuple(one for (kind, _), one in objects.items() if kind == "PersistentVolumeClaim"),
            source=objects.get(("ConfigMap", "bank-code")),
            inventories=inventories,
            probes=dict(self.probes),
            ingresses={name: self._ingress(name) for name in ("ingress-0", "ingress-1")},
            ingress_reached=not self.ingress_down and ("Deployment", "bank-ingress") in objects,
            refusals=dict(self.refusals),
            table_written_at=self.table_written_at,
            credential=self.fresh,
            stock_image=STOCK,
        )

    def _inventory(self, host: str, pod: Object) -> Inventory | Silent | None:
        if host in self.shut:
            return Silent("the volume is not open: No space left", True, Disk(2**30, 0, full=True))
        if host in self.silent or host in self.hung or not pod["status"].get("serves"):
            return Silent("no answer", answers=False)
        volume = self.volume(host)
        return Inventory(
            namespace=volume.namespace,
            host=host,
            volume=volume.id,
            shards=self.namespace["spec"]["shards"],
            protocol=1,
            version="0.1.0",
            states=tuple((shard, epoch, "owned") for shard, epoch in sorted(volume.states.items())),
            table=self._recalled(host),
            credentials=self._credentials(host),
            disk=Disk(self.used_bytes, 2**30 - self.used_bytes, host in self.full),
        )

    def _ingress(self, name: str) -> Known | Silent:
        if self.ingress_down or name in self.silent:
            return Silent("no answer", answers=False)
        return Known(table=self._recalled(name), credentials=self._credentials(name))

    def reread(self, *names: str) -> None:
        """kubelet has brought the Secret to these."""
        for name in names:
            self.read[name] = peer_credentials(self.objects[("Secret", "bank-peer")])

    def _credentials(self, name: str) -> tuple[str, ...]:
        if name not in self.read and ("Secret", "bank-peer") in self.objects:
            self.reread(name)
        return tuple(sha256(text.encode()).hexdigest()[:16] for text in self.read.get(name, ()) if text)

    def _recalled(self, watcher: str) -> Document | None:
        table = self.views[watcher].table if watcher in self.views else None
        return table.document() if table else None

    def decide(self, observed: Observed | None = None) -> Plan:
        return plan(observed or self.observe())

    def execute(self, decided: Plan, version: str | None = None, upto: int | None = None) -> bool:
        """As `Execution.run`; whether it was not refused. `upto`: the operator dies after that many actions."""
        try:
            self.write_status(decided.status, version)
            for action in decided.actions[:upto]:
                refusal = None if isinstance(action, Tell | Grant) else self.refuse(action)
                if refusal:
                    manifest = self.namespace if isinstance(action, Mark) else getattr(action, "manifest", None)
                    manifest = manifest or action.live  # type: ignore[union-attr]
                    key = f"{manifest['kind']}/{manifest['metadata']['name']}"
                    self.refusals[key] = (*refusal, digest(manifest))
                    continue
                self.do(action)
        except Refused:
            return False
        return True

    def write_status(self, status: Object, version: str | None = None) -> None:
        body = self.namespace
        if version is not None and body["metadata"]["resourceVersion"] != version:
            raise Refused("stale")
        if body["status"] != status:
            body["status"] = copied(status)
            self._bump(body)
            self.writes += 1

    def do(self, action: Action) -> None:
        match action:
            case Tell():
                self.events.append(action)
                return
            case Create(manifest):
                self.put(manifest)
                self._note(manifest)
            case Apply(manifest, live):
                self._change(self._at(live), manifest)
            case Replace(manifest, live):
                self._change(self._at(live), manifest)
                self._note(manifest)
            case Patch(fields, live):
                target = self._at(live)
                merge(target, fields)
                self._bump(target)
            case Mark(annotations):
                known = self.namespace["metadata"].get("annotations", {}) | annotations
                self.namespace["metadata"]["annotations"] = {k: v for k, v in known.items() if v is not None}
                self._bump(self.namespace)
            case Delete(live, orphan):
                self._delete(self._at(live), orphan)
            case Grant(host, volume, _, _, grants):
                self._grant(host, volume, grants)
        self.writes += 1

    def _change(self, live: Object, manifest: Object) -> None:
        spec_changed = live.get("spec") != manifest.get("spec")
        for key, value in manifest.items():
            if key != "metadata":
                live[key] = copied(value)
        for key in ("labels", "annotations"):
            kept = {k: v for k, v in live["metadata"].get(key, {}).items() if k == names.HEALED}
            live["metadata"][key] = {**kept, **manifest["metadata"].get(key, {})}
        if spec_changed:
            live["metadata"]["generation"] += 1
        self._bump(live)

    def _note(self, manifest: Object) -> None:
        if manifest["kind"] != names.PLACEMENT_KIND:
            return
        assert self.now - self.table_written_at >= 1.0, "at most one write of the table a second"
        self.table_written_at = self.now
        table = Table.of(msgspec.convert(manifest["spec"], Document))
        for shard in range(table.shards):
            assert table.epoch(shard) >= self.published.get(shard, 0), f"the epoch of shard {shard} fell"
            self.published[shard] = table.epoch(shard)
            owner = table.owner(shard)
            if owner:
                self.served.add(shard)
                self.recorded.add(table.volumes[owner[0]])
            held = owner and self._holds(owner[0], table.volumes[owner[0]], shard)
            assert not owner or held is None or held <= owner[1], f"{owner} is behind what its volume holds, {held}"

    def _holds(self, host: str, volume: str, shard: int) -> int | None:
        for one in self.volumes.values():
            if one.id == volume:
                return one.states.get(shard)
        return None

    def _grant(self, host: str, meant: str, grants: tuple[tuple[int, int], ...]) -> None:
        volume = self.volume(host)
        if volume.id != meant:
            raise Refused("the grant is for another volume")
        for shard, epoch in grants:
            if volume.states.get(shard) == epoch:
                continue
            assert shard not in volume.states, "a host refuses a shard that it knows at another epoch"
            if shard in self.served | (self.earlier if self._inherits(self.observe()) else set()):
                assert self._given_up(shard), f"shard {shard} was owned and would begin empty"
                assert epoch > (seen := self._seen(shard)), f"shard {shard} begins anew at {epoch}, {seen} was seen"
            volume.states[shard] = epoch

    def _inherits(self, observed: Observed) -> bool:
        """Whether there are volumes of an earlier namespace; once all of them are lost, this is a new one."""
        since = observed.namespace.metadata.creation_timestamp
        return any(one["metadata"]["creationTimestamp"] < since for one in observed.claims)

    def _seen(self, shard: int) -> int:
        """The highest epoch that anybody knows."""
        known = [view.table.epoch(shard) for view in self.views.values() if view.table]
        claims = {one["metadata"]["uid"] for (kind, _), one in self.objects.items() if kind == "PersistentVolumeClaim"}
        return max([1, *known, *(one.states.get(shard, 0) for uid, one in self.volumes.items() if uid in claims)])

    def _given_up(self, shard: int) -> bool:
        """Whether the user gave it up, and no host that was not forgotten holds it."""
        held = {h for n in range(4) if ("PersistentVolumeClaim", f"data-bank-{(h := f'host-{n}')}") in self.objects
                if shard in self.volume(h).states}  # fmt: skip
        return shard in self.given_up or (bool(self.forgotten) and held <= self.forgotten)

    def _delete(self, live: Object, orphan: bool) -> None:
        host = names.host_id("bank", live["metadata"]["name"]) if live["kind"] == "Pod" else None
        if host and live["status"].get("serves"):
            down = [h for h in self._expected() if h != host and not self._serves(h)]
            assert not down, f"{host} serves and is deleted while {down} do not"
        key = (live["kind"], live["metadata"]["name"])
        if orphan:
            del self.objects[key]
        else:
            self.remove(key)

    def _expected(self) -> list[str]:
        live = self.objects.get(("StatefulSet", "bank-host"))
        return [f"host-{n}" for n in range(live["spec"]["replicas"])] if live else []

    def _serves(self, host: str) -> bool:
        pod = self.objects.get(("Pod", f"bank-{host}"))
        return bool(pod and pod["status"].get("serves"))

    # The world -----------------------------------------------------------------------------------------------------

    def tick(self, seconds: float = 1.0) -> None:
        """Time passes: controllers and kubelet do theirs."""
        self.now += seconds
        self._stateful_set()
        self._deployment()
        for (kind, _), live in list(self.objects.items()):
            if kind == "Pod":
                self._kubelet(live)
        self._probe()
        self._watch()

    def _watch(self) -> None:
        """Hosts and ingresses take the table, or refuse it; a host stores an epoch that is raised for it."""
        live, owner = self.objects.get((names.PLACEMENT_KIND, "bank")), self.objects.get((names.KIND, "bank"))
        if owner is None:
            return
        uid = owner["metadata"]["uid"]
        for name in ("ingress-0", "ingress-1", *(f"host-{n}" for n in range(4))):
            if name in self.deaf or ("host" in name and not self._serves(name)):
                continue
            pod = Pod("bank", uid, owner["spec"]["shards"], name, "default", None, Path(), 30.0, 30.0, False)
            view = self.views.setdefault(name, View(pod))
            view.placed([live] if live else [])
            if "host" in name and view.table:
                volume = self.volume(name)
                volume.states |= judge(view.table, name, volume.id, volume.states).lifted

    def _stateful_set(self) -> None:
        live = self.objects.get(("StatefulSet", "bank-host"))
        if not live:
            return
        live["status"] = {"observedGeneration": live["metadata"]["generation"]}
        for n in range(live["spec"]["replicas"]):
            name = f"bank-host-{n}"
            claim = ("PersistentVolumeClaim", f"data-{name}")
            if claim not in self.objects:
                wanted = live["spec"]["volumeClaimTemplates"][0]
                made = self.put({"kind": claim[0], "metadata": {"name": claim[1]}, "spec": copied(wanted["spec"])})
                made["status"] = {"capacity": dict(wanted["spec"]["resources"]["requests"])}
            if ("Pod", name) not in self.objects:
                self._make_pod(name, live)
            owners = self.objects[("Pod", name)]["metadata"]["ownerReferences"]
            owners[0]["uid"] = live["metadata"]["uid"]  # a StatefulSet made anew adopts them
        for key in list(self.objects):
            host = names.host_id("bank", key[1]) if key[0] == "Pod" else None
            if host and int(host[5:]) >= live["spec"]["replicas"]:
                self.remove(key)

    def _make_pod(self, name: str, owner: Object) -> None:
        template = copied(owner["spec"]["template"])
        self.put(
            {
                "kind": "Pod",
                "metadata": {
                    **template["metadata"],
                    "name": name,
                    "ownerReferences": [{"uid": owner["metadata"]["uid"]}],
                },
                "spec": template["spec"],
                "status": {"phase": "Pending"},
            }
        )

    def _deployment(self) -> None:
        live = self.objects.get(("Deployment", "bank-ingress"))
        if live:
            wanted = live["spec"].get("replicas", 1)
            live["status"] = {
                "observedGeneration": live["metadata"]["generation"],
                "replicas": wanted,
                "updatedReplicas": wanted,
                "availableReplicas": 0 if self.unrouted else wanted,
            }

    def _kubelet(self, pod: Object) -> None:
        before = copied(pod["status"])
        image = pod["spec"]["containers"][0]["image"]
        host = names.host_id("bank", pod["metadata"]["name"])
        if host is None:
            if "preflight" in pod["metadata"]["name"]:
                self._preflight(pod, image)
        elif host in self.missing_nodes:
            entry = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
            entry["message"] = self.unschedulable
            pod["status"] = {"phase": "Pending", "conditions": [entry]}
        elif image in self.crashing or host in self.looping:
            ended = {"exitCode": 1, "reason": "Error", "message": "boom", "finishedAt": timestamp(self.now)}
            last = (before.get("containerStatuses") or [{}])[0].get("lastState", {}).get("terminated") or ended
            state = {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": last}}
            pod["status"] = {"phase": "Running", "podIP": f"10.0.0.{host[5:]}", "containerStatuses": [state]}
        else:
            self._open(host)
            ready = "False" if host in self.hung | self.shut else "True"
            pod["status"] = {
                "phase": "Running",
                "podIP": f"10.0.0.{host[5:]}",
                "serves": host not in self.hung | self.shut,
                "conditions": [
                    {"type": "Ready", "status": ready},
                    {"type": "ContainersReady", "status": "True" if host in self.dark else ready},
                ],
            }
        if pod["status"] != before:
            self._bump(pod)

    def _preflight(self, pod: Object, image: str) -> None:
        ended = {"exitCode": 2, "reason": "Error", "message": "class bank:Account can't be imported"}
        if image in self.unpullable:
            waiting = {"reason": "ImagePullBackOff", "message": "Back-off pulling image: ErrImagePull: not found"}
            pod["status"] = {"phase": "Pending", "containerStatuses": [{"state": {"waiting": waiting}}]}
        elif image in self.bad_images:
            pod["status"] = {"phase": "Failed", "containerStatuses": [{"state": {"terminated": ended}}]}
        else:
            pod["status"] = {"phase": "Succeeded"}

    def _open(self, host: str) -> None:
        claim, uid = self.claim(host), self.namespace["metadata"]["uid"]
        volume = self.volumes.setdefault(claim["metadata"]["uid"], Volume(f"{self.version:08x}", uid))
        env = self.pod(host)["spec"]["containers"][0]["env"]
        if volume.namespace != uid and {"name": "KUBEACTOR_ADOPT", "value": "true"} in env:
            volume.namespace = uid

    def _probe(self) -> None:
        table = self.table
        for host in table.volumes if table else ():
            before = self.probes.get(host, Probe())
            reached = self._serves(host) and host not in self.hung | self.cut
            if reached and table and self.volume(host).id == table.volumes[host]:
                self.probes[host] = Probe(passed_at=self.now)
            elif self.now - before.missed_at >= 10:
                self.probes[host] = Probe(before.passed_at, before.misses + 1, self.now, "no connection")

    # Together ------------------------------------------------------------------------------------------------------

    def step(self) -> Plan:
        observed = self.observe()
        decided = self.decide(observed)
        done = self.execute(decided, observed.resource_version)
        if done and observed.namespace.spec.hosts.storage.adopt and self._inherits(observed):
            self.served |= self.earlier  # and so it stays, whatever is lost from now on
        self.tick(min(decided.again_s, 1.0))
        return decided

    def settle(self, rounds: int = 200) -> None:
        """Until two looks in a row change nothing, 30 s apart."""
        quiet = 0
        for _ in range(rounds):
            before = self.writes
            self.step()
            quiet = quiet + 1 if self.writes == before else 0
            if quiet >= 3:
                self.tick(30)
                before = self.writes
                self.step()
                if self.writes == before:
                    return
                quiet = 0
        raise AssertionError(f"no rest after {rounds} looks: {self.decide().actions} {self.status}")
