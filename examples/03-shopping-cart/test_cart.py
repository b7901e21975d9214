"""pytest"""

from __future__ import annotations

import pytest
from cart import CartEmpty, Shop

from kubeactor.testing import Actors


async def test_items_are_kept_added_up_and_removed(actors: Actors[Shop]) -> None:
    cart = actors.env.CART.id_from_name("visitor")
    await cart.add("pen", 2)
    await cart.add("pen")
    assert await cart.add("book") == {"pen": 3, "book": 1}
    assert await cart.remove("pen") == {"book": 1}
    await actors.crash()
    assert await cart.items() == {"book": 1}


async def test_a_cart_expires_half_an_hour_after_its_last_change(actors: Actors[Shop]) -> None:
    cart = actors.env.CART.id_from_name("visitor")
    await cart.add("pen")
    await actors.advance(minutes=29)
    await cart.add("book")
    await actors.advance(minutes=29)
    assert await cart.items() == {"pen": 1, "book": 1}
    await actors.advance(minutes=1)
    assert await cart.items() == {}


async def test_a_checkout_empties_the_cart_and_its_alarm(actors: Actors[Shop]) -> None:
    cart = actors.env.CART.id_from_name("visitor")
    await cart.add("pen")
    assert await cart.checkout() == {"pen": 1}
    assert await actors.storage(cart).get_alarm() is None
    with pytest.raises(CartEmpty, match="put something"):
        await cart.checkout()


async def test_a_count_is_checked_before_the_method_starts(actors: Actors[Shop]) -> None:
    response = await actors.http.post("/v1/actors/CART/visitor/add", json={"item": "pen", "count": 0})
    assert (response.status_code, "count" in response.json()["detail"]) == (400, True)
