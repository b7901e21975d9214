from __future__ import annotations

from kubeactor.call import SESSION, CallId
from kubeactor.sessions import RETIRED_S, Sessions


def test_the_lowest_free_slot_of_the_shard_is_used_and_counts_its_uses() -> None:
    sessions = Sessions()

    def take(shard: int = 1) -> tuple[int, int]:
        made = sessions.take(shard, 0.0)
        assert (made.kind, made.key) == (SESSION, sessions.key)
        return (made.slot, made.count)

    assert [take(), take(), take(), take(shard=2)] == [(0, 1), (1, 1), (2, 1), (0, 1)]
    sessions.free(1, 2)
    sessions.free(1, 0)
    assert [take(), take(), take()] == [(0, 2), (2, 2), (3, 1)]


def test_an_id_is_never_given_twice() -> None:
    sessions = Sessions()
    seen: set[tuple[int, CallId]] = set()
    for turn in range(100):
        ids = [sessions.take(turn % 3, float(turn)) for _ in range(turn % 5 + 1)]
        assert len(set(ids)) == len(ids)
        keyed = {(turn % 3, made) for made in ids}
        assert not seen & keyed
        seen |= keyed
        for made in ids:
            sessions.free(turn % 3, made.slot)


def test_two_routers_have_two_sessions() -> None:
    assert Sessions().key != Sessions().key
    assert len(Sessions().key) == 8


def test_a_retired_slot_rests_until_no_attempt_can_be_alive() -> None:
    sessions = Sessions()
    sessions.retire(1, sessions.take(1, 0.0).slot, now=10.0)
    assert sessions.take(1, 10.0 + RETIRED_S - 0.1).slot == 1
    assert sessions.take(1, 10.0 + RETIRED_S) == CallId(SESSION, sessions.key, 0, 2)
