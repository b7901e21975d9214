"""Who syncs: the loop on a fast disk or for one caller, the thread on a slow one or where many share a slower sync."""

from __future__ import annotations

import itertools

from kubeactor.engine.sync_policy import PATIENCE_FIRST, PATIENCE_LAST, SyncPolicy

FAST, MEDIUM, SLOW = 0.00003, 0.0004, 0.005


def by_thread(policy: SyncPolicy, seconds: float, batches: int, syncs: int) -> int:
    """How many of the next syncs the thread does, on a disk and under a load that stay as they are."""
    count = 0
    for _ in range(syncs):
        if policy.wants_thread():
            count += 1
        else:
            policy.took(seconds)
        policy.synced(batches)
    return count


def test_a_fast_disk_is_synced_by_the_loop_however_many_share() -> None:
    assert by_thread(SyncPolicy(), FAST, 50, 1000) == 0


def test_one_caller_waits_in_the_loop_until_a_sync_is_slow() -> None:
    assert by_thread(SyncPolicy(), MEDIUM, 1, 1000) == 0
    assert by_thread(SyncPolicy(), SLOW, 1, 1000) > 900


def test_callers_who_share_a_sync_have_the_thread_do_it() -> None:
    assert by_thread(SyncPolicy(), MEDIUM, 12, 1000) > 900


def test_one_slow_sync_changes_nothing() -> None:
    policy = SyncPolicy()
    by_thread(policy, FAST, 12, 100)
    policy.took(SLOW)
    assert by_thread(policy, FAST, 12, 100) == 0


def test_the_loop_tries_again_less_and_less_often_and_is_back_at_the_first_fast_sync() -> None:
    policy = SyncPolicy()
    tries = []
    for at in range(40_000):
        if not policy.wants_thread():
            policy.took(SLOW)
            tries.append(at)
    gaps = [later - earlier - 1 for earlier, later in itertools.pairwise(tries[1:])]
    assert gaps[:3] == [PATIENCE_FIRST, 2 * PATIENCE_FIRST, 4 * PATIENCE_FIRST]
    assert max(gaps) == gaps[-1] == PATIENCE_LAST
    while policy.wants_thread():
        pass
    policy.took(FAST)
    assert by_thread(policy, FAST, 12, 100) == 0
