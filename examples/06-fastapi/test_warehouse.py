"""pytest"""

from __future__ import annotations

import asyncio

from warehouse import Warehouse

from kubeactor.testing import Actors


async def test_the_routes_of_the_app_work_as_before(actors: Actors[Warehouse]) -> None:
    assert (await actors.http.get("/products")).json()["pen"] == "A blue pen"
    assert (await actors.http.get("/products/ship")).status_code == 404
    assert (await actors.http.post("/products/pen/orders", json={"count": 0})).status_code == 422
    assert (await actors.http.get("/docs")).status_code == 200


async def test_no_more_is_sold_than_there_is_however_many_ask_at_once(actors: Actors[Warehouse]) -> None:
    await actors.http.post("/products/pen/deliveries", json={"count": 10})
    orders = (actors.http.post("/products/pen/orders", json={"count": 3}) for _ in range(8))
    answers = await asyncio.gather(*orders)
    assert sorted(answer.status_code for answer in answers) == [200] * 3 + [409] * 5
    refused = next(answer.json() for answer in answers if answer.status_code == 409)
    assert (refused["name"], refused["left"]) == ("SoldOut", 1)
    assert (await actors.http.get("/products/pen")).json() == {"text": "A blue pen", "left": 1}


async def test_an_order_under_way_survives_a_crash(actors: Actors[Warehouse]) -> None:
    await actors.env.STOCK.id_from_name("book").deliver(5)
    actors.crash_after(writes=1)
    assert (await actors.http.post("/products/book/orders", json={"count": 2})).json() == {"left": 3}
    assert actors.crashes == 1
    assert await actors.env.STOCK.id_from_name("book").left() == 3
