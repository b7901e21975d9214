from __future__ import annotations

import asyncio

import pytest
from tests.harness.wiring import RunningHost, ScriptedEngine, bound, hello, run

from kubeactor import link as links
from kubeactor.link import Link


class TellingLink(Link):
    """A link that also tells when it is in trouble."""

    def _troubled(self, trouble: str) -> None:
        super()._troubled(trouble)
        self.told.set()

    @property
    def told(self) -> asyncio.Event:
        return self.__dict__.setdefault("_told", asyncio.Event())  # type: ignore[no-any-return]


class Watched:
    """A link, and an event for each time that it opened."""

    def __init__(self, address: str, wrong: str = "") -> None:
        self.opened: asyncio.Queue[str] = asyncio.Queue()
        self.resumed: list[str] = []
        self.link = TellingLink(
            "host-0", address, hello(), lambda host, welcome: wrong, self.opened.put_nowait, self.resumed.append
        )


@pytest.mark.parametrize("sound_s", [0.0, 60.0], ids=["long-lived", "short-lived"])
def test_a_link_opens_again_as_often_as_it_breaks(monkeypatch: pytest.MonkeyPatch, sound_s: float) -> None:
    monkeypatch.setattr(links, "SOUND_S", sound_s)

    async def main() -> None:
        host = await RunningHost(ScriptedEngine()).start()
        watched = Watched(host.address)
        for opens in (1, 2, 3):
            assert await watched.opened.get() == "host-0"
            assert watched.link.opens == opens
            assert watched.link.ready is not None
            assert watched.link.trouble == ""
            await host.kill()
            await host.start()
        await watched.link.close()
        await host.close()

    run(main())


@pytest.mark.parametrize("address", ["/no/such/socket", "127.0.0.1:port"])
def test_an_address_that_leads_nowhere_is_told_and_tried_again(address: str) -> None:
    async def main() -> None:
        watched = Watched(address)
        await watched.link.told.wait()
        assert watched.link.trouble not in ("", "not connected yet")
        watched.link.told.clear()
        await watched.link.told.wait()
        assert watched.link.ready is None
        await watched.link.close()

    run(main())


def test_a_link_that_is_closed_while_it_dials_opens_no_more() -> None:
    async def main() -> None:
        silent = bound()
        silent.listen()
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        watched = Watched(host)
        await asyncio.sleep(0)
        await watched.link.close()
        assert watched.opened.empty()
        silent.close()

    run(main())


def test_a_host_that_fails_the_check_is_left_again() -> None:
    async def main() -> None:
        host = await RunningHost(ScriptedEngine()).start()
        watched = Watched(host.address, wrong="this is not the one")
        await watched.link.told.wait()
        assert watched.link.trouble == "this is not the one"
        assert watched.opened.empty()
        await watched.link.close()
        await host.close()

    run(main())
