"""The shared secret as files."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest

from kubeactor.pod import peers as peers_module
from kubeactor.pod.identity import PodError
from kubeactor.pod.peers import Peers


def test_current_is_said_and_both_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "current").write_text("new\n")
    assert Peers(tmp_path).accepted == (b"new",)
    (tmp_path / "previous").write_text("old\n")
    peers = Peers(tmp_path)
    assert (peers.current, peers.accepted) == (b"new", (b"new", b"old"))
    assert peers.fingerprints == [hashlib.sha256(token).hexdigest()[:16] for token in (b"new", b"old")]


@pytest.mark.parametrize("text", [None, "", " \n", "x" * 5000])
def test_without_a_current_token_nothing_starts(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "current").write_text(text)
    with pytest.raises(PodError, match="the peer credentials in"):
        Peers(tmp_path)


def test_an_empty_previous_lets_nobody_in(tmp_path: Path) -> None:
    (tmp_path / "current").write_text("new")
    (tmp_path / "previous").write_text("")
    assert Peers(tmp_path).accepted == (b"new",)


def test_files_that_go_bad_leave_the_last_good_tokens_in_use(tmp_path: Path) -> None:
    (tmp_path / "current").write_text("one")
    peers = Peers(tmp_path)
    (tmp_path / "current").unlink()
    assert not peers.poll()
    assert peers.trouble.endswith("the last good ones stay in use")
    assert peers.accepted == (b"one",)
    (tmp_path / "current").write_text("two")
    assert peers.poll()
    assert (peers.trouble, peers.accepted) == ("", (b"two",))
    assert not peers.poll()


def test_a_change_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers_module, "POLL_S", 0.001)
    (tmp_path / "current").write_text("one")
    peers = Peers(tmp_path)

    async def main() -> None:
        told = asyncio.Event()
        task = asyncio.create_task(peers.run(told.set))
        (tmp_path / "current").write_text("two")
        async with asyncio.timeout(20):
            await told.wait()
        task.cancel()

    asyncio.run(main())
    assert peers.current == b"two"
