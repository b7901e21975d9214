"""An ingress asks a host for the built-in probe, down the connection that calls take."""

from __future__ import annotations

import asyncio

import pytest
from tests.harness.wiring import down, namespace, run, table

from kubeactor.errors import ActorError, ActorFencedError, ActorShardUnavailableError
from kubeactor.pod import probe as probe_module
from kubeactor.pod.probe import Prober
from kubeactor.router import Router


def prober(router: Router | None) -> Prober:
    return Prober(lambda: router, lambda: "starting")


def test_a_shard_that_the_host_owns_is_probed_at_its_epoch() -> None:
    async def main() -> None:
        async with namespace(2, table(["host-0", "host-1"] * 4)) as (router, hosts):
            found = await prober(router).probe("host-1")
            assert found is not None
            [(shard, epoch)] = hosts[1].engine.checks
            assert (found["host"], found["shard"], found["epoch"]) == ("host-1", shard, epoch)
            assert (shard % 2, epoch, hosts[0].engine.checks) == (1, 1, [])
            assert found["ms"] >= 0
            assert await prober(router).probe("host-9") is None

    run(main())


def test_questions_about_one_host_share_a_probe() -> None:
    async def main() -> None:
        async with namespace() as (router, hosts):
            asked = prober(router)
            first, second = await asyncio.gather(asked.probe("host-0"), asked.probe("host-0"))
            assert first == second
            assert len(hosts[0].engine.checks) == 1
            await asked.probe("host-0")
            assert len(hosts[0].engine.checks) == 2

    run(main())


@pytest.mark.parametrize("outcome", [ActorFencedError("not mine"), None])
def test_a_refusal_and_silence_are_told(outcome: ActorError | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_module, "ANSWER_S", 0.2)

    async def main() -> None:
        async with namespace() as (router, hosts):
            hosts[0].engine.checked = outcome
            with pytest.raises(ActorError, match="not mine" if outcome else "did not answer within 0.2 s"):
                await prober(router).probe("host-0")

    run(main())


def test_a_host_that_is_away_or_goes_is_told() -> None:
    async def main() -> None:
        async with namespace() as (router, hosts):
            hosts[0].engine.checked = None
            asked = asyncio.create_task(prober(router).probe("host-0"))
            while not hosts[0].engine.checks:
                await asyncio.sleep(0)
            await down(router, hosts[0])
            with pytest.raises(ActorShardUnavailableError, match="host-0 went away"):
                await asked
            with pytest.raises(ActorShardUnavailableError, match="host-0 can't be reached"):
                await prober(router).probe("host-0")
        with pytest.raises(ActorShardUnavailableError, match="starting"):
            await prober(None).probe("host-0")

    run(main())
