from __future__ import annotations

import asyncio
from dataclasses import dataclass

from kubeactor.parking import Parking


@dataclass
class Item:
    order: int
    shard: int = 0
    size: int = 1


def test_calls_leave_in_the_order_of_their_arrival_though_a_retried_one_comes_last() -> None:
    parking: Parking[Item] = Parking()
    for order in (5, 6, 3, 4):
        parking.add(Item(order))
    sent: list[int] = []

    def send(item: Item) -> bool:
        sent.append(item.order)
        return item.order < 5

    parking.drain(0, send)
    assert sent == [3, 4, 5], "5 found no way out, 6 was not tried"
    assert parking.calls == 2
    parking.drain(0, lambda item: True)
    assert (parking.lanes, parking.calls, parking.bytes) == ({}, 0, 0)


def test_all_bounds_are_told_by_name() -> None:
    parking: Parking[Item] = Parking(max_calls=3, max_bytes=100, max_shard_calls=2)
    assert parking.full(0, 100) == ""
    assert "hold 0 bytes" in parking.full(0, 101)
    parking.add(Item(1, size=60))
    assert parking.full(0, 40) == ""
    assert "hold 60 bytes" in parking.full(0, 41)
    parking.add(Item(2))
    assert parking.full(0, 1) == "2 calls wait for shard 0"
    parking.add(Item(3, shard=1))
    assert parking.full(2, 1) == "3 calls wait for their hosts"


def test_what_is_dropped_counts_no_more() -> None:
    parking: Parking[Item] = Parking()
    for order in range(6):
        parking.add(Item(order, shard=order % 2, size=10))
    assert [item.order for item in parking.drop(lambda item: item.shard == 0 or item.order == 3)] == [0, 2, 4, 3]
    assert (list(parking.lanes), parking.calls, parking.bytes) == ([1], 2, 20)


def test_a_lane_that_is_told_to_hold_stops_to_drain_and_an_ended_one_forgets_its_timer() -> None:
    async def main() -> None:
        parking: Parking[Item] = Parking()
        parking.add(Item(1))
        lane = parking.add(Item(2))

        def refused(item: Item) -> bool:
            lane.hold = asyncio.get_running_loop().call_later(60, lambda: None)
            return True

        parking.drain(0, refused)
        assert [item.order for item in lane.calls] == [2]
        timer = lane.hold
        assert timer is not None
        parking.drop(lambda item: True)
        assert timer.cancelled()
        assert lane.hold is None
        lane.release()

    asyncio.run(main())
