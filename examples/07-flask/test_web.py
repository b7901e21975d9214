"""pytest"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest
import web
from visits import Site

from kubeactor.testing import Actors


@pytest.fixture
def pages(actors: Actors[Site], monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Coroutine[Any, Any, Any]]:
    """GET a page of the service, whose calls go to the actors of this test instead of over the network."""

    async def get(path: str) -> Any:
        loop = asyncio.get_running_loop()

        def call(method: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> Any:
            async def made() -> Any:
                return await method(*args)

            return asyncio.run_coroutine_threadsafe(made(), loop).result()

        monkeypatch.setattr(web, "site", SimpleNamespace(env=actors.env, call=call))
        response = await asyncio.to_thread(web.app.test_client().get, path)
        return response.get_json()

    return get


async def test_each_visit_of_a_page_counts_once(
    actors: Actors[Site], pages: Callable[[str], Coroutine[Any, Any, Any]]
) -> None:
    for number in (1, 2):
        assert await pages("/pages/home") == {"page": "home", "visits": number}
    assert await pages("/pages/about") == {"page": "about", "visits": 1}
    actors.crash_after(writes=1)
    assert await pages("/pages/home") == {"page": "home", "visits": 3}
    assert actors.crashes == 1
    assert await pages("/pages/home/visits") == {"visits": 3}
