"""What counts as a change of the user's code."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kubeactor import sources
from kubeactor.sources import Sources


def touched(path: Path) -> None:
    """As an editor saves: the time of change is another one."""
    later = path.stat().st_mtime_ns + 1_000_000
    os.utime(path, ns=(later, later))


CHANGES: dict[str, Callable[[Path], object]] = {
    "saved": lambda folder: touched(folder / "a.py"),
    "saved below": lambda folder: touched(folder / "package" / "b.py"),
    "deleted": lambda folder: (folder / "a.py").unlink(),
    "new": lambda folder: (folder / "package" / "c.py").write_text(""),
    "renamed": lambda folder: (folder / "a.py").rename(folder / "d.py"),
}
OTHERS = (
    ".hidden/x.py",
    "node_modules/x.py",
    "venv/x.py",
    "package/__pycache__/x.py",
    "site-packages/x.py",
    "note.txt",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.py", "package/b.py", *OTHERS, "venv/pyvenv.cfg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    return tmp_path


@pytest.mark.parametrize("change", CHANGES)
def test_python_files_count_however_they_change(folder: Path, change: str) -> None:
    found = Sources(folder)
    assert not found.changed()
    CHANGES[change](folder)
    assert found.changed()


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_code_of_the_user_does_not_count(folder: Path, name: str) -> None:
    found = Sources(folder)
    touched(folder / name)
    assert not found.changed()


def test_files_of_elsewhere_count_once_they_are_added(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other") / "library.py"
    other.write_text("")
    found = Sources(folder)
    found.add([other, folder / "a.py"])
    assert not found.changed()
    touched(other)
    assert found.changed()


def test_the_number_of_files_is_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "FILES_MAX", 1)
    found = Sources(folder)
    touched(folder / "package" / "b.py")  # the second
    assert not found.changed()
    touched(folder / "a.py")
    assert found.changed()
