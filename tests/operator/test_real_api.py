"""The applying part against a real API server with its StatefulSet, Deployment and garbage collection controllers."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TypeVar

import aiohttp
import pytest
import pytest_asyncio
from tests.cluster.api import ApiServer
from tests.harness.dev import free_port
from tests.operator.world import CRDS, STOCK, Controllers, World, connection, running, until

from kubeactor_operator import names
from kubeactor_operator.actions import Apply, Create, Delete, Patch, Plan, Replace
from kubeactor_operator.api import KINDS, Api, ApiError
from kubeactor_operator.controller import Controller
from kubeactor_operator.execute import Execution, NotLeader
from kubeactor_operator.lease import Lease
from kubeactor_operator.main import operate, options
from kubeactor_operator.observe import Memory, observe
from kubeactor_operator.observed import Inventory, Object, Silent
from kubeactor_operator.plan import plan
from kubeactor_operator.pods import PodError, Pods

pytestmark = pytest.mark.asyncio
SPACES = itertools.count(1)
T = TypeVar("T")
WRITES = ("POST", "PUT", "PATCH", "DELETE")


@pytest.fixture(scope="session")
def served(apiserver: ApiServer) -> Iterator[ApiServer]:
    for path in sorted(CRDS.glob("*.yaml")):
        apiserver.kube.kubectl("apply", "--server-side", "-f", str(path))
    apiserver.kube.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    with Controllers(apiserver):
        yield apiserver


class CountingApi(Api):
    """Keeps what was written."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self.written: list[str] = []

    async def _ask(self, method: str, path: str, *rest: object, **more: object) -> dict[str, object]:
        if method in WRITES and "events" not in path:
            self.written.append(f"{method} {path}")
        return await super()._ask(method, path, *rest, **more)  # type: ignore[arg-type]


@pytest_asyncio.fixture
async def nothing_stays_open() -> AsyncIterator[None]:
    """A connection that was just being opened when its task was cancelled is closed by the loop, in its own time."""
    yield
    loop = asyncio.get_running_loop()

    async def closed() -> bool:
        return len(loop._selector.get_map()) <= 1  # type: ignore[attr-defined]  # the loop's own pipe

    await until(closed, "every connection is closed")
    for _ in range(10):
        await asyncio.sleep(0)


@pytest_asyncio.fixture
async def world(served: ApiServer, nothing_stays_open: None) -> AsyncIterator[World]:
    number = next(SPACES)
    async with Api(connection(served)) as api:
        space = f"space-{number}"
        served.kube.kubectl("create", "namespace", space)
        async with World(api, space, number) as made:
            yield made


@pytest_asyncio.fixture
async def api(served: ApiServer, nothing_stays_open: None) -> AsyncIterator[CountingApi]:
    async with CountingApi(connection(served)) as made:
        yield made


async def operator(api: Api, world: World) -> None:
    """The controller without kopf: what its watch would tell is told by a clock."""
    async with Pods(world.port) as pods, asyncio.TaskGroup() as group:
        controller = Controller(api, pods, may_write=lambda: True, stock_image=STOCK, namespaces=[world.space])
        group.create_task(controller.run())
        while True:
            controller.wake(world.space, "bank")
            await asyncio.sleep(0.2)


async def ready(world: World) -> bool:
    return await world.is_("Ready", "True", "Serving")


async def converged(world: World, name: str = "bank") -> bool:
    return await world.is_("Ready", "True", "Serving", name) and await world.is_(
        "Progressing", "False", "UpToDate", name
    )


async def everything(api: Api, space: str) -> list[Object]:
    kinds = [kind for kind in KINDS if kind not in ("StorageClass", "Event")]
    return [one for kind in kinds for one in await api.list(kind, space)]


async def test_an_applied_namespace_becomes_ready_and_then_nothing_is_written(api: CountingApi, world: World) -> None:
    await world.apply()
    async with running(operator(api, world)):
        await until(lambda: converged(world), "ready")
        table = await api.get(names.PLACEMENT_KIND, world.space, "bank")
        assert table
        assert sorted(table["spec"]["hosts"]) == ["host-0", "host-1", "host-2"]
        assert world.grants == 8
        bank = (await world.bank())["metadata"]
        assert bank["annotations"]["kubeactor.io/placed"] == bank["uid"]
    async with Pods(world.port) as pods:
        controller = Controller(api, pods, may_write=lambda: True, stock_image=STOCK, namespaces=[world.space])
        await controller.look((world.space, "bank"))  # what was under way when the other one was stopped
        api.written.clear()
        for _ in range(5):
            assert await controller.look((world.space, "bank")) == pytest.approx(20, abs=10)
    assert api.written == []
    assert [one["metadata"]["name"] for one in await everything(api, world.space) if one["metadata"].get("finalizers")
            if one["kind"] != "PersistentVolumeClaim"] == []  # fmt: skip


async def test_an_operator_that_dies_after_every_single_write_converges(api: CountingApi, world: World) -> None:
    await world.apply()
    lives, loop = 0, asyncio.get_running_loop()
    deadline = loop.time() + 100
    while not await converged(world):
        assert loop.time() < deadline, f"not converged after {lives} lives"
        async with Pods(world.port) as pods:
            budget = [1]

            def may_write(budget: list[int] = budget) -> bool:
                budget[0] -= 1
                return budget[0] >= 0

            controller = Controller(api, pods, may_write=may_write, stock_image=STOCK, namespaces=[world.space])
            with contextlib.suppress(NotLeader, ApiError):
                await controller.look((world.space, "bank"))
        lives += budget[0] < 1
        await asyncio.sleep(0.02)  # its controllers and kubelet run beside it: a life takes the time of a restart
    assert lives > 20
    assert world.grants == 8
    assert all(set(states.values()) == {1} for _, states in world.volumes.values())


async def test_deleting_a_namespace_needs_no_operator_and_keeps_the_volumes(api: CountingApi, world: World) -> None:
    await world.apply()
    async with running(operator(api, world)):
        await until(lambda: converged(world), "ready")
    bank = await world.bank()
    await api.delete(bank)
    assert await api.get(names.KIND, world.space, "bank") is None

    async def gone() -> bool:
        left = [(one["kind"], one["metadata"]["name"]) for one in await everything(api, world.space)]
        return {kind for kind, _ in left if kind != "Lease"} == {"PersistentVolumeClaim"}

    await until(gone, "garbage collection")
    assert len(await api.list("PersistentVolumeClaim", world.space)) == 3


async def patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """While a CRD changes, the API server answers 429."""
    for _ in range(600):
        try:
            return await ask()
        except ApiError as error:
            if error.status != 429:
                raise
        await asyncio.sleep(0.05)
    raise AssertionError("the API server is busy for half a minute")


async def test_what_a_late_look_makes_for_a_deleted_namespace_is_collected_also_while_the_crd_changes(
    api: CountingApi, world: World, served: ApiServer
) -> None:
    async def gone() -> bool:
        left = await patiently(lambda: everything(api, world.space))
        return {one["kind"] for one in left if one["kind"] != "Lease"} == {"PersistentVolumeClaim"}

    def change(categories: list[str]) -> None:
        patch = json.dumps({"spec": {"names": {"categories": categories}}})
        served.kube.kubectl("patch", "crd", "actornamespaces.kubeactor.io", "--type=merge", "-p", patch)

    await world.apply()
    async with running(operator(api, world)):
        await until(lambda: converged(world), "ready")
    bank = await world.bank()
    for kind, name in (("Service", "bank"), ("Role", "bank-host"), (names.PLACEMENT_KIND, "bank")):
        live = await api.get(kind, world.space, name)
        assert live
        await api.delete(live)
    async with Pods(world.port) as pods:
        late = [one for one in plan(await observe(api, pods, bank, Memory(), STOCK)).actions if isinstance(one, Create)]
        assert {one.manifest["kind"] for one in late} == {"Service", "Role", names.PLACEMENT_KIND}
        changing = asyncio.create_task(asyncio.to_thread(change, ["all", "kubeactor", "changing"]))
        await patiently(lambda: _deleted(api, world.space))
        await changing
        await until(gone, "garbage collection")
        changing = asyncio.create_task(asyncio.to_thread(change, ["all", "kubeactor"]))
        for action in late:
            await patiently(partial(Execution(api, pods, lambda: True).run, bank, Plan((action,), {}), Memory()))
        await changing
        await until(gone, "garbage collection of what came late")


async def _deleted(api: Api, space: str) -> None:
    if bank := await api.get(names.KIND, space, "bank"):
        await api.delete(bank)


async def test_retained_volumes_are_taken_over_only_when_the_user_says_so(api: CountingApi, world: World) -> None:
    await world.apply()
    async with running(operator(api, world)):
        await until(lambda: converged(world), "ready")
        await api.delete(await world.bank())
        await until(lambda: _no_pods(api, world), "pods gone")
        await asyncio.sleep(1.1)  # timestamps of the API have seconds; claims are older than their namespace by those
        await world.apply()
        await until(lambda: world.is_("Degraded", "True", "VolumesOfAnotherNamespace"), "refused")
        assert await api.get("StatefulSet", world.space, "bank-host") is None
        assert {epoch for _, states in world.volumes.values() for epoch in states.values()} == {1}
        await world.change(hosts={"storage": {"adopt": True}})
        await until(lambda: converged(world), "adopted")
        assert world.grants == 8
        table = await api.get(names.PLACEMENT_KIND, world.space, "bank")
        assert table
        assert table["spec"]["namespace"] == (await world.bank())["metadata"]["uid"]


async def _no_pods(api: Api, world: World) -> bool:
    return not await api.list("Pod", world.space) and not await api.get("StatefulSet", world.space, "bank-host")


async def test_an_object_of_someone_else_is_never_taken_over(api: CountingApi, world: World) -> None:
    foreign = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "bank", "namespace": world.space},
        "spec": {"ports": [{"port": 1}]},
    }
    made = await api.create(foreign)
    await world.apply()
    async with running(operator(api, world)):
        await until(lambda: world.is_("Degraded", "True", "NameConflict"), "conflict")
        assert (await api.get("Service", world.space, "bank")) == made
        await api.delete(made)
        await until(lambda: converged(world), "ready after it is gone")


async def test_a_field_that_the_spec_no_longer_has_is_gone_from_the_child(api: CountingApi, world: World) -> None:
    await world.apply(ingress={"replicas": 2, "nodeSelector": {"disk": "fast"}})

    async def selector() -> object:
        live = await api.get("Deployment", world.space, "bank-ingress")
        return live and live["spec"]["template"]["spec"].get("nodeSelector")

    async def is_(wanted: object) -> bool:
        return await selector() == wanted

    async with running(operator(api, world)):
        await until(lambda: converged(world), "ready")
        assert await selector() == {"disk": "fast"}
        await world.change(ingress={"replicas": 2})
        await until(lambda: is_(None), "selector gone")
        await until(lambda: converged(world), "ready")


async def test_a_rollout_goes_host_by_host_and_a_bad_image_changes_nothing(api: CountingApi, world: World) -> None:
    await world.apply()
    world.bad_images.add("bank:bad")
    async with running(operator(api, world)):
        await until(lambda: converged(world), "ready")
        before = {one["metadata"]["uid"] for one in await api.list("Pod", world.space)}
        await world.change(image="bank:bad")
        await until(lambda: world.is_("Degraded", "True", "PreflightFailed"), "refused")
        assert before <= {one["metadata"]["uid"] for one in await api.list("Pod", world.space)}
        await world.change(image="bank:2")

        async def on_2() -> bool:
            pods = await api.list("Pod", world.space)
            return len(pods) == 5 and {one["spec"]["containers"][0]["image"] for one in pods} == {"bank:2"}

        await until(on_2, "rolled out")
        await until(lambda: converged(world), "ready")
        assert (await world.bank())["status"]["image"] == "bank:2"


async def test_a_pod_setting_that_the_api_server_refuses_is_told_and_what_runs_goes_on(
    api: CountingApi, world: World
) -> None:
    await world.apply()
    async with running(operator(api, world)):
        await until(lambda: converged(world), "ready")
        await world.change(hosts={"tolerations": [{"operator": "Nonsense"}]})
        await until(lambda: world.is_("Degraded", "True", "InvalidPodSettings"), "refused")
        assert await ready(world)
        await world.change(hosts={"tolerations": []})
        await until(lambda: world.is_("Degraded", "False", "AsExpected"), "mended")


async def test_what_changed_since_it_was_observed_is_not_overwritten(api: CountingApi, world: World) -> None:
    live = await api.create(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "box", "namespace": world.space},
            "data": {"a": "1"},
        }
    )
    memory, execution = Memory(), Execution(api, Pods(world.port), lambda: True)
    wanted = {key: live[key] for key in ("apiVersion", "kind")} | {
        "metadata": {"name": "box", "namespace": world.space},
        "data": {"a": "3"},
    }
    await api.replace({**live, "data": {"a": "2"}})
    body = await world.apply()
    for action in (
        Apply(wanted, live),
        Replace(wanted, live),
        Patch({"data": {"a": "3"}}, live),
        Delete(live),
        Create(wanted),
    ):
        with pytest.raises(ApiError) as refused:
            await execution.run(body, Plan((action,), {}), memory)
        assert refused.value.status == 409, action
    found = await api.get("ConfigMap", world.space, "box")
    assert found
    assert found["data"] == {"a": "2"}
    for status in ({"hosts": 1}, {"hosts": 2}):
        stale = await world.bank()
        await world.change(image=f"bank:{status['hosts']}0")
        with pytest.raises(ApiError) as refused:
            await execution.run(stale, Plan((), dict(status)), memory)
        assert refused.value.status == 409


async def test_a_host_that_refuses_a_grant_ends_the_look_and_it_is_tried_again(api: CountingApi, world: World) -> None:
    await world.apply()
    async with running(operator(api, world)):
        await until(lambda: converged(world), "ready")
    pod = next(one for one in await api.list("Pod", world.space) if one["metadata"]["name"] == "bank-host-0")
    async with Pods(world.port) as pods:
        address, token = pod["status"]["podIP"], world._tokens[pod["status"]["podIP"]]
        found = await pods.inventory(address, token)
        assert isinstance(found, Inventory)
        volume = found.volume
        with pytest.raises(PodError, match="another volume"):
            await pods.grant(address, token, "lost", [(0, 1)])
        with pytest.raises(PodError, match="known at another epoch"):
            await pods.grant(address, token, volume, [(0, 9)])
        with pytest.raises(PodError) as refused:
            await pods.grant(address, "wrong", volume, [(0, 1)])
        assert refused.value.status == 401
        silent = await pods.inventory(address, "wrong")
        assert isinstance(silent, Silent)
        assert silent.answers
        nobody = await pods.inventory("127.200.0.1", token)
        assert isinstance(nobody, Silent)


async def test_one_of_two_replicas_leads_and_the_other_takes_over(api: CountingApi, world: World) -> None:
    now = [0.0]
    first, second = (Lease(api, world.space, "lease", name, lambda: now[0]) for name in ("a", "b"))
    await first.acquire()
    assert first.held
    assert not await second._tried()
    now[0] += 9.9
    assert first.held
    assert await first._tried()
    now[0] += 10.1  # as if it had been stopped: it notices before it writes
    assert not first.held
    assert not await second._tried()  # has seen the renewal just now, by its own clock
    now[0] += 15
    await second.acquire()
    assert second.held
    assert not await first._tried()
    await first.keep()  # returns since it is lost
    await second.release()
    assert not second.held
    assert await first._tried()
    lease = await api.get("Lease", world.space, "lease")
    assert lease
    assert lease["spec"]["holderIdentity"] == "a"
    assert lease["spec"]["leaseTransitions"] == 2


async def test_the_program_leads_watches_tells_its_state_and_stops(
    api: CountingApi, world: World, served: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(served.kubeconfig))
    port = free_port()
    chosen = options(
        ["--namespace", world.space, "--lease-namespace", world.space, "--host-image", STOCK, "--port", str(port)],
        {"POD_NAME": "operator-0"},
    )
    stop = asyncio.Event()
    await world.apply()
    async with running(operate(replace(chosen, pod_port=world.port), stop)) as program, aiohttp.ClientSession() as http:
        await until(lambda: converged(world), "ready")
        await world.apply("later")  # by the watch: the timer lists what is new once in a minute only

        async def told() -> bool:
            return "conditions" in (await world.bank("later")).get("status", {})

        await until(told, "the watch tells of it", 50)
        await world.change(hosts={"replicas": 0})
        await until(lambda: world.is_("Ready", "False", "Hibernated"), "hibernated")

        async def metrics() -> str:
            async with http.get(f"http://127.0.0.1:{port}/metrics") as response:
                return await response.text()

        async def counted() -> bool:
            return 'kubeactor_operator_namespaces{condition="Paused",status="False"} 2.0' in await metrics()

        await until(counted, "both are counted")
        text = await metrics()
        assert "kubeactor_operator_leader 1.0" in text
        assert "kubeactor_operator_reconcile_seconds_count" in text
        for path in ("healthz", "readyz"):
            async with http.get(f"http://127.0.0.1:{port}/{path}") as response:
                assert response.status == 200
                assert (await response.json())["leader"] is True
        stop.set()
        assert await asyncio.wait_for(program, 60) == 0
    lease = await api.get("Lease", world.space, "kubeactor-operator")
    assert lease
    assert lease["spec"].get("holderIdentity", "") == ""
    assert not (await world.bank())["metadata"].get("finalizers")


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_fifty_namespaces_are_looked_at_quickly_and_left_alone(api: CountingApi, world: World) -> None:
    for n in range(50):
        await world.apply(f"bank-{n}", hosts={"replicas": 1}, ingress={"replicas": 1})
    async with running(operator(api, world)):
        for n in range(50):
            await until(lambda n=n: converged(world, f"bank-{n}"), f"bank-{n} ready", 300)  # type: ignore[misc]
    async with Pods(world.port) as pods:
        controller = Controller(api, pods, may_write=lambda: True, stock_image=STOCK, namespaces=[world.space])
        for n in range(50):
            await controller.look((world.space, f"bank-{n}"))
        api.written.clear()
        started = asyncio.get_running_loop().time()
        for n in range(50):
            await controller.look((world.space, f"bank-{n}"))
        took = asyncio.get_running_loop().time() - started
    print(f"50 namespaces: {took / 50 * 1000:.0f} ms for a look")
    assert api.written == []
    assert took < 25
