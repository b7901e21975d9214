from __future__ import annotations

import os
from pathlib import Path

import pytest

from kubeactor import page as module
from kubeactor.ids import ActorId, identity_of_name, new_unique_identity
from kubeactor.page import TurnPage, instance_of, label_of

ALICE = ActorId("ACCOUNT", b"alice")


@pytest.fixture
def page(tmp_path: Path) -> TurnPage:
    made = TurnPage.open(tmp_path / "turn.page")
    made.reset()
    return made


def test_a_page_names_the_turn_between_enter_and_leave(page: TurnPage) -> None:
    assert page.read() is None
    page.enter(label_of(instance_of(ALICE), "debit"))
    turn = page.read()
    assert turn is not None
    assert (turn.actor, turn.instance, turn.method) == (ALICE, b"ACCOUNT\0alice", "debit")
    assert str(turn) == "ACCOUNT/alice.debit"
    page.leave()
    assert page.read() is None


@pytest.mark.parametrize("name", ["a/b", "a.b", "😀 ?#%", "x" * 1024])
def test_every_name_comes_back_whole(page: TurnPage, name: str) -> None:
    actor = ActorId("A" * 63, identity_of_name(name))
    page.enter(label_of(instance_of(actor), "m" * 1000))
    turn = page.read()
    assert turn is not None
    assert turn.actor == actor
    assert turn.method == "m" * module.METHOD_BYTES


def test_a_unique_id_comes_back_whole(page: TurnPage) -> None:
    actor = ActorId("CART", new_unique_identity())
    page.enter(label_of(instance_of(actor), "add"))
    turn = page.read()
    assert turn is not None
    assert turn.actor == actor


def test_a_short_label_after_a_long_one_leaves_nothing_of_it(page: TurnPage) -> None:
    page.enter(label_of(b"ACCOUNT\0" + b"x" * 1024, "a_long_method"))
    page.leave()
    page.enter(label_of(instance_of(ALICE), "debit"))
    assert str(page.read()) == "ACCOUNT/alice.debit"


@pytest.mark.parametrize(
    "torn", [b"", b"ACCOUNT", b"ACCOUNT\0", b"\0alice\0debit\0", b"ACCOUNT\0\0debit\0", b"\xff\0alice\0debit\0"]
)
def test_an_unreadable_label_names_nobody(page: TurnPage, torn: bytes) -> None:
    page.enter(torn)
    assert page.read() is None


def test_a_name_that_was_cut_inside_a_character_names_nobody(page: TurnPage) -> None:
    page.enter(b"ACCOUNT\0\xe2\x82\0debit\0")
    assert page.read() is None


def test_a_label_without_an_end_names_nobody(page: TurnPage) -> None:
    page.enter(b"ACCOUNT\0" + b"x" * (module.SIZE - 64 - 8))
    assert page.read() is None


def test_a_page_that_nobody_prepared_names_nobody(tmp_path: Path) -> None:
    page = TurnPage.open(tmp_path / "turn.page")
    page.enter(label_of(instance_of(ALICE), "debit"))
    assert page.read() is None
    assert not page.of_this_boot


def test_marks_are_seen_through_another_mapping_and_outlive_the_process(tmp_path: Path) -> None:
    reader = TurnPage.open(tmp_path / "turn.page")
    reader.reset()
    if (pid := os.fork()) == 0:
        writer = TurnPage.open(tmp_path / "turn.page")
        writer.tick()
        writer.enter_rocksdb()
        writer.enter(label_of(instance_of(ALICE), "debit"))
        writer.mark_own_kill()
        os._exit(0)
    os.waitpid(pid, 0)
    assert str(reader.read()) == "ACCOUNT/alice.debit"
    assert reader.last_tick > 0
    assert reader.in_rocksdb
    assert reader.own_kill
    assert reader.of_this_boot
    reader.reset()
    assert (reader.read(), reader.last_tick, reader.in_rocksdb, reader.own_kill) == (None, 0, False, False)


def test_the_loop_leaves_rocksdb(page: TurnPage) -> None:
    page.enter_rocksdb()
    page.leave_rocksdb()
    assert not page.in_rocksdb


def test_memory_is_kept_in_percent(page: TurnPage) -> None:
    page.note_memory(71.6)
    assert page.memory_percent == 72
    page.note_memory(1e6)
    assert page.memory_percent == 255


def test_a_page_of_an_earlier_boot_is_known_as_such(page: TurnPage, monkeypatch: pytest.MonkeyPatch) -> None:
    assert page.of_this_boot
    monkeypatch.setattr(module, "_boot_id", lambda: bytes(16))
    assert not page.of_this_boot


def test_a_page_has_its_block_on_the_volume_before_it_is_mapped(tmp_path: Path) -> None:
    TurnPage.open(tmp_path / "turn.page")
    assert (tmp_path / "turn.page").stat().st_blocks > 0


def test_a_page_that_is_no_file_is_an_error_and_leaks_nothing(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    os.mkfifo(tmp_path / "turn.page")
    with pytest.raises(OSError, match=r"."):
        TurnPage.open(tmp_path / "turn.page")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_page_in_memory_works_the_same() -> None:
    page = TurnPage.anonymous()
    page.reset()
    page.enter(label_of(instance_of(ALICE), "debit"))
    assert str(page.read()) == "ACCOUNT/alice.debit"
    page.close()
