"""pytest"""

from __future__ import annotations

import asyncio

import pytest
from limiter import Limits, TooManyRequests

from kubeactor.testing import Actors


async def test_a_client_has_so_many_requests_and_more_as_time_passes(actors: Actors[Limits]) -> None:
    alice = actors.env.LIMITER.id_from_name("alice")
    assert [await alice.take() for _ in range(3)] == [2, 1, 0]
    with pytest.raises(TooManyRequests, match="3 requests in 3600 s") as caught:
        await alice.take()
    assert caught.value.wait_s == 1200
    await actors.advance(seconds=1200)
    assert await alice.take() == 0
    await actors.advance(days=1)
    assert await alice.take() == 2  # a bucket holds no more than the limit


async def test_clients_have_buckets_of_their_own(actors: Actors[Limits]) -> None:
    for name in ("alice", "bob"):
        assert await actors.env.LIMITER.id_from_name(name).take() == 2


async def test_requests_at_once_do_not_take_the_same_token(actors: Actors[Limits]) -> None:
    answers = await asyncio.gather(*(actors.http.get("/alice") for _ in range(10)))
    assert sorted(answer.status_code for answer in answers) == [200] * 3 + [429] * 7
    assert {answer.headers["retry-after"] for answer in answers if answer.status_code == 429} == {"1200"}


async def test_tokens_that_were_taken_stay_so_after_a_crash(actors: Actors[Limits]) -> None:
    alice = actors.env.LIMITER.id_from_name("alice")
    await alice.take()
    await actors.crash()
    assert await alice.take() == 1
