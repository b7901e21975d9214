from __future__ import annotations

import os
from pathlib import Path

import pytest

from kubeactor.cgroup import memory_limit_bytes, oom_kills, resident_bytes


@pytest.fixture
def membership(tmp_path: Path) -> Path:
    return tmp_path / "membership"


def test_version_two_takes_the_smallest_limit_on_the_way_up(tmp_path: Path, membership: Path) -> None:
    membership.write_text("0::/pod/container\n")
    (tmp_path / "pod/container").mkdir(parents=True)
    (tmp_path / "pod/container/memory.max").write_text("max\n")
    assert memory_limit_bytes(tmp_path, membership) is None
    (tmp_path / "pod/memory.max").write_text("1000\n")
    (tmp_path / "memory.max").write_text("2000\n")
    assert memory_limit_bytes(tmp_path, membership) == 1000


def test_version_one_has_a_folder_of_its_own_and_a_number_for_no_limit(tmp_path: Path, membership: Path) -> None:
    membership.write_text("3:cpu,cpuacct:/pod\n2:memory:/of/the/node\n1:name=systemd:/x\n0::/\n")
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory/memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert memory_limit_bytes(tmp_path, membership) is None
    (tmp_path / "memory/memory.limit_in_bytes").write_text("536870912\n")
    assert memory_limit_bytes(tmp_path, membership) == 512 << 20


def test_a_machine_without_cgroups_has_no_limit(tmp_path: Path) -> None:
    assert memory_limit_bytes(tmp_path, tmp_path / "absent") is None
    assert oom_kills(tmp_path, tmp_path / "absent") == 0


@pytest.mark.parametrize(
    ("line", "file", "text"),
    [
        ("0::/", "memory.events", "oom 7\noom_kill 2\noom_group_kill 1\n"),
        ("4:memory:/pod", "memory/pod/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
    ],
)
def test_kills_for_lack_of_memory_are_counted(
    tmp_path: Path, membership: Path, line: str, file: str, text: str
) -> None:
    membership.write_text(line + "\n")
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(text)
    assert oom_kills(tmp_path, membership) == 2


def test_the_resident_memory_of_a_process() -> None:
    assert 5 << 20 < resident_bytes(os.getpid(), os.sysconf("SC_PAGE_SIZE")) < 2 << 30
    assert resident_bytes(2**22 + 1) == 0
