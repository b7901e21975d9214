from __future__ import annotations

import json
from multiprocessing import get_context
from pathlib import Path

import pytest

from kubeactor import quarantine as module
from kubeactor.ids import ActorId, new_unique_identity
from kubeactor.page import instance_of
from kubeactor.quarantine import Quarantine, release

ALICE = ActorId("ACCOUNT", b"alice")
BOB = ActorId("ACCOUNT", b"bob")


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "quarantine.json"


def thrice(quarantine: Quarantine, actor: ActorId) -> list[bool]:
    return [quarantine.record_death(actor, "segfault") for _ in range(3)]


def test_the_third_death_within_ten_minutes_quarantines(file: Path, clock: Clock) -> None:
    quarantine = Quarantine(file, clock)
    assert thrice(quarantine, ALICE) == [False, False, True]
    assert quarantine.is_quarantined(instance_of(ALICE))
    assert not quarantine.is_quarantined(instance_of(BOB))
    assert quarantine.entries()[ALICE].reason == "segfault"
    assert quarantine.record_death(ALICE, "again"), "it stays"
    assert quarantine.entries()[ALICE].reason == "segfault"


@pytest.mark.parametrize("step_s", [301.0, -301.0])
def test_deaths_further_apart_do_not_add_up(file: Path, clock: Clock, step_s: float) -> None:
    quarantine = Quarantine(file, clock)
    for _ in range(6):
        assert not quarantine.record_death(ALICE, "segfault")
        clock.now += step_s
    assert quarantine.deaths(ALICE) == 2


def test_a_clock_that_steps_back_an_hour_delays_a_quarantine_and_loses_none(file: Path, clock: Clock) -> None:
    quarantine = Quarantine(file, clock)
    quarantine.record_death(ALICE, "segfault")
    clock.now -= 3600
    assert thrice(quarantine, ALICE)[-1]


def test_it_outlives_the_process(file: Path, clock: Clock) -> None:
    unique = ActorId("CART", new_unique_identity())
    thrice(Quarantine(file, clock), unique)
    Quarantine(file, clock).record_death(ALICE, "segfault")
    again = Quarantine(file, clock)
    assert again.is_quarantined(instance_of(unique))
    assert again.deaths(ALICE) == 1


def test_a_reader_notices_a_change_and_reads_only_then(file: Path, clock: Clock) -> None:
    reader = Quarantine(file, clock)
    writer = Quarantine(file, clock)
    assert not reader.refresh()
    thrice(writer, ALICE)
    assert reader.refresh()
    assert reader.is_quarantined(instance_of(ALICE))
    assert not reader.refresh()
    assert release(file.parent, ALICE)
    assert reader.refresh()
    assert not reader.is_quarantined(instance_of(ALICE))


def test_release_of_one_that_is_free_says_so(tmp_path: Path) -> None:
    assert not release(tmp_path, ALICE)


def test_a_writer_keeps_what_another_one_changed(file: Path, clock: Clock) -> None:
    supervisor = Quarantine(file, clock)
    thrice(supervisor, ALICE)
    thrice(supervisor, BOB)
    assert release(file.parent, ALICE)
    supervisor.record_death(ActorId("CART", b"c"), "segfault")
    assert list(Quarantine(file).entries()) == [BOB]


def _record(file: Path, name: str) -> None:
    quarantine = Quarantine(file)
    for n in range(20):
        quarantine.record_death(ActorId("CART", f"{name}{n}".encode()), "segfault")


def test_writers_at_the_same_time_lose_nothing(file: Path) -> None:
    processes = [get_context("spawn").Process(target=_record, args=(file, name)) for name in "ab"]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert len(json.loads(file.read_bytes())["deaths"]) == 40


def test_the_oldest_deaths_go_first_and_the_quarantined_stay(
    file: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ENTRIES", 4)
    quarantine = Quarantine(file, clock)
    thrice(quarantine, ALICE)
    for n in range(5):
        clock.now += 1
        quarantine.record_death(ActorId("CART", b"%d" % n), "segfault")
    assert [quarantine.deaths(ActorId("CART", b"%d" % n)) for n in range(5)] == [0, 0, 1, 1, 1]
    assert quarantine.is_quarantined(instance_of(ALICE))


@pytest.mark.parametrize("content", [b"", b"{", b'{"quarantined": {"nobody": {"since": 1, "reason": "x"}}}', b"[]"])
def test_an_unreadable_file_counts_as_empty(file: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    file.write_bytes(content)
    quarantine = Quarantine(file)
    assert quarantine.entries() == {}
    assert "unreadable" in caplog.text
    assert thrice(quarantine, ALICE)[-1]
    assert list(Quarantine(file).entries()) == [ALICE]


def test_what_can_not_be_saved_holds_in_memory_and_is_saved_when_it_can(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "volume"
    quarantine = Quarantine(folder / "quarantine.json", clock)
    assert thrice(quarantine, ALICE)[-1]
    assert quarantine.is_quarantined(instance_of(ALICE))
    assert "could not be saved" in caplog.text
    assert not quarantine.refresh()
    folder.mkdir()
    quarantine.record_death(BOB, "segfault")
    assert list(Quarantine(folder / "quarantine.json").entries()) == [ALICE]
    assert quarantine.refresh() is False


def test_without_a_volume_it_is_kept_in_memory(clock: Clock) -> None:
    quarantine = Quarantine(None, clock)
    assert thrice(quarantine, ALICE)[-1]
    assert quarantine.is_quarantined(instance_of(ALICE))
    assert quarantine.release(ALICE)
    assert not quarantine.is_quarantined(instance_of(ALICE))


def test_a_long_reason_is_cut(file: Path) -> None:
    quarantine = Quarantine(file)
    for _ in range(3):
        quarantine.record_death(ALICE, "x" * 10_000)
    assert len(quarantine.entries()[ALICE].reason) == module.REASON_CHARS


def test_no_descriptor_is_left_open(file: Path) -> None:
    quarantine = Quarantine(file)
    before = len(list(Path("/proc/self/fd").iterdir()))
    thrice(quarantine, ALICE)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
