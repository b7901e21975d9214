"""Whatever goes wrong on the way, operator and world come to rest, and on no step of the way is a promise broken.

The simulated cluster asserts at each action: no shard that was ever served begins empty unless the user gave it up, the
published epochs never fall, no host that serves is taken down while another one is down.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.operator.simulation import Cluster

from kubeactor_operator import names
from kubeactor_operator.actions import Plan
from kubeactor_operator.observed import Observed

HOSTS = [f"host-{n}" for n in range(3)]
WATCHERS = [*HOSTS, "ingress-0", "ingress-1"]


class Story:
    """What happens to one namespace."""

    def __init__(self) -> None:
        self.sim = Cluster()
        self.old: list[Observed] = []
        self.tables: list[dict[str, object]] = []

    def step(self, _: int) -> None:
        self.old.append(self.sim.observe())
        self.sim.step()
        live = self.sim.objects.get((names.PLACEMENT_KIND, "bank"))
        if live:
            self.tables.append(copy.deepcopy(live["spec"]))

    def dies(self, n: int) -> None:
        """The operator dies after n actions."""
        observed = self.sim.observe()
        self.sim.execute(self.sim.decide(observed), observed.resource_version, upto=n)
        self.sim.tick()

    def lost_status(self, n: int) -> None:
        """The same, and its status was not written."""
        decided = self.sim.decide()
        self.sim.execute(Plan(decided.actions, self.sim.status, decided.again_s), upto=n)
        self.sim.tick()

    def wakes(self, n: int) -> None:
        """A leader that was paused acts on what it saw long ago."""
        if self.old:
            observed = self.old[-1 - n % len(self.old)]
            self.sim.execute(self.sim.decide(observed), observed.resource_version)

    def time(self, n: int) -> None:
        self.sim.tick(float(n))

    def deletes_pod(self, n: int) -> None:
        self.sim.remove(("Pod", f"bank-host-{n % 3}"))

    def hangs(self, n: int) -> None:
        self.sim.hung.add(HOSTS[n % 3])

    def unhangs(self, n: int) -> None:
        self.sim.hung.discard(HOSTS[n % 3])

    def deletes(self, n: int) -> None:
        keys = [
            key for key in sorted(self.sim.objects) if key[0] not in (names.KIND, "PersistentVolumeClaim", "Secret")
        ]
        key = keys[n % len(keys)] if keys else None
        if key == (names.PLACEMENT_KIND, "bank"):
            self.deletes_table(n)
        elif key:
            self.sim.remove(key)

    def deletes_table(self, _: int) -> None:
        held = {shard for volume in self.sim.volumes.values() for shard in volume.states}
        if not self.sim.status.get("shards") and len(held) < 8 and self.sim.observe().marked:
            return  # without it, shards that were not granted yet can't be told from lost ones: the user decides
        self.sim.remove((names.PLACEMENT_KIND, "bank"))
        self._table_changed()

    def restores_table(self, n: int) -> None:
        live = self.sim.objects.get((names.PLACEMENT_KIND, "bank"))
        if live and self.tables:
            live["spec"] = copy.deepcopy(self.tables[n % len(self.tables)])
            self.sim._bump(live)
            self._table_changed()

    def _table_changed(self) -> None:
        table = self.sim.table
        self.sim.published = {s: table.epoch(s) for s in range(table.shards)} if table else {}

    def wipes(self, n: int) -> None:
        claim = self.sim.objects.get(("PersistentVolumeClaim", f"data-bank-{HOSTS[n % 3]}"))
        if claim and claim["metadata"]["uid"] in self.sim.volumes:
            self.sim.wipe(HOSTS[n % 3])

    def loses(self, n: int) -> None:
        """Claim and pod of a host are deleted by hand."""
        if ("PersistentVolumeClaim", f"data-bank-{HOSTS[n % 3]}") in self.sim.objects:
            self.sim.lose(HOSTS[n % 3])

    def forgets(self, n: int) -> None:
        if self.sim.table:
            self.sim.forget(HOSTS[n % 3])

    def loses_all(self, n: int) -> None:
        """The table, the figures, and what some pods know of it."""
        self.sim.remove((names.PLACEMENT_KIND, "bank"))
        self.sim.namespace["status"] = {}
        self._table_changed()
        for watcher in WATCHERS[n % 6 :]:
            self.sim.views.pop(watcher, None)

    def deafens(self, n: int) -> None:
        """The API server does not reach some pod."""
        self.sim.deaf ^= {WATCHERS[n % 5]}

    def image(self, n: int) -> None:
        self.sim.bad_images = {"bank:bad"}
        self.sim.crashing = {"bank:crash"}
        self.sim.apply_spec({"image": ["bank:1", "bank:2", "bank:bad", "bank:crash"][n % 4]})

    def scales(self, n: int) -> None:
        self.sim.apply_spec({"hosts": {"replicas": n % 4}})

    def recreated(self, _: int) -> None:
        if not self.sim.status.get("shards"):
            return  # volumes that no shard was ever on can't be told from such that lost them: the user decides
        self.sim.apply_spec({"hosts": {"storage": {"adopt": True}}})
        self.sim.recreate()
        self.old.clear()

    def ends_well(self) -> None:
        sim = self.sim
        sim.hung.clear()
        sim.crashing.clear()
        sim.bad_images.clear()
        sim.deaf.clear()
        sim.apply_spec({"image": "bank:9", "hosts": {"replicas": 3, "storage": {"adopt": True}}})
        sim.tick(60)
        sim.settle(400)
        for _ in range(4):  # three misses of the probe, if it misses
            sim.tick(10)
            sim.step()
        for name, view in sim.views.items():
            assert view.trouble == "", f"{name} does not take the table"
            assert view.table == sim.table


EVENTS: list[Callable[[Story, int], None]] = [
    Story.step, Story.step, Story.step, Story.dies, Story.lost_status, Story.wakes, Story.time, Story.deletes_pod,
    Story.hangs, Story.unhangs, Story.deletes, Story.deletes_table, Story.restores_table, Story.image, Story.scales,
    Story.recreated, Story.deafens,
]  # fmt: skip
AND_WIPES = [*EVENTS, Story.wipes]
AND_FORGETS = [*AND_WIPES, Story.loses, Story.loses, Story.loses_all, Story.loses_all, *[Story.forgets] * 4]
stories = st.lists(st.tuples(st.sampled_from(EVENTS), st.integers(0, 30)), max_size=25)
bad_stories = st.lists(st.tuples(st.sampled_from(AND_WIPES), st.integers(0, 30)), max_size=25)
worst_stories = st.lists(st.tuples(st.sampled_from(AND_FORGETS), st.integers(0, 30)), max_size=25)
ASIS = settings(max_examples=25)


@ASIS
@given(st.booleans(), stories)
def test_it_always_comes_to_rest_with_every_shard_where_its_data_is(begun: bool, story: list) -> None:  # type: ignore[type-arg]
    told = Story()
    if begun:
        told.sim.settle()
    for event, n in story:
        event(told, n)
    told.ends_well()
    sim = told.sim
    assert sim.condition("Ready") == ("True", "Serving"), sim.status
    table = sim.table
    assert table
    for shard in range(8):
        owner = table.owner(shard)
        assert owner
        assert sim.volume(owner[0]).states[shard] == owner[1]
        assert sim.volume(owner[0]).id == table.volumes[owner[0]]


@ASIS
@given(bad_stories)
def test_lost_volumes_never_come_back_as_empty_ones(story: list) -> None:  # type: ignore[type-arg]
    told = Story()
    told.sim.settle()
    for event, n in story:
        event(told, n)
    told.ends_well()
    sim = told.sim
    table = sim.table
    held = {shard for host in HOSTS for shard in sim.volume(host).states}
    assert not held & sim.wiped
    assert sim.condition("Ready")[0] == ("False" if sim.wiped else "True")
    if sim.wiped:
        assert sim.condition("Degraded")[1] in ("VolumeLost", "PlacementIncomplete")
    assert table
    for shard in held:
        owner = table.owner(shard)
        assert owner
        assert sim.volume(owner[0]).states[shard] == owner[1]


@ASIS
@given(worst_stories)
def test_what_is_forgotten_begins_anew_where_no_other_volume_could_hold_it(story: list) -> None:  # type: ignore[type-arg]
    """The simulated cluster asserts it at each grant. And in the end the user can always get on."""
    told = Story()
    told.sim.settle()
    for event, n in story:
        event(told, n)
    told.ends_well()
    sim = told.sim
    for _ in range(3):
        if sim.condition("Ready")[0] == "True":
            break
        for host in HOSTS:
            sim.forget(host)
        sim.settle()
    told.ends_well()
    assert sim.condition("Ready") == ("True", "Serving"), sim.status
    assert sim.table
    assert all(sim.table.owner(shard) for shard in range(8))


def test_data_that_the_user_gave_up_begins_anew_under_a_higher_epoch() -> None:
    sim = Cluster()
    sim.settle()
    table = sim.table
    assert table
    lost, others = (
        table.shards_of("host-1"),
        {s: table.owner(s) for s in range(8) if s not in table.shards_of("host-1")},
    )
    sim.wipe("host-1")
    sim.settle()
    sim.annotate(**{"forget-host-1": "wrong:"})
    sim.settle()
    assert sim.condition("Degraded") == ("True", "VolumeLost")
    sim.forget("host-1")
    sim.settle()
    assert sim.condition("Ready") == ("True", "Serving")
    assert sim.condition("Degraded") == ("False", "AsExpected")
    after = sim.table
    assert after
    assert {s: after.owner(s) for s in lost} == dict.fromkeys(lost, ("host-1", 2))
    assert {s: after.owner(s) for s in others} == others
    assert after.volumes["host-1"] == sim.volume("host-1").id
