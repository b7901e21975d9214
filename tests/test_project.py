"""`[tool.kubeactor]` of a pyproject.toml."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubeactor import project
from kubeactor.project import Project, ProjectError, find_project, read_project


def write(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text(text)
    return folder


def test_the_env_and_the_front_door_are_read(tmp_path: Path) -> None:
    write(tmp_path, '[tool.kubeactor]\nenv = "bank:Bank"\nfront-door = "bank:app"\n')
    assert read_project(tmp_path) == Project(tmp_path, "bank:Bank", "bank:app")
    write(tmp_path, '[project]\nname = "x"\n[tool.ruff]\nline-length = 1\n[tool.kubeactor]\nenv = "bank:Bank"\n')
    assert read_project(tmp_path) == Project(tmp_path, "bank:Bank", None)


@pytest.mark.parametrize("text", ["", '[project]\nname = "x"\n', "[tool.ruff]\nline-length = 1\n"])
def test_a_file_without_the_section_names_nothing(tmp_path: Path, text: str) -> None:
    assert read_project(write(tmp_path, text)) is None
    assert read_project(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[tool.kubeactor", "can't be read"),
        ("[tool.kubeactor]\nfront-door = 'bank:app'\n", "missing required field `env`"),
        ("[tool.kubeactor]\nenv = 5\n", "Expected `str`"),
        ("[tool.kubeactor]\nenv = 'a:B'\nfrontdoor = 'a:b'\n", "unknown field `frontdoor`"),
    ],
)
def test_a_wrong_file_is_refused_with_what_to_write(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ProjectError, match=says) as caught:
        read_project(write(tmp_path, text))
    assert str(tmp_path / "pyproject.toml") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_is_read_up_to_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project, "FILE_BYTES", 10)
    with pytest.raises(ProjectError, match="larger than 10 bytes"):
        read_project(write(tmp_path, "# " + "x" * 20))


def test_the_nearest_folder_upwards_that_has_the_section_is_found(tmp_path: Path) -> None:
    write(tmp_path, '[tool.kubeactor]\nenv = "outer:Env"\n')
    below = write(tmp_path / "a" / "b", '[project]\nname = "x"\n')
    assert find_project(below) == Project(tmp_path, "outer:Env")
    write(tmp_path / "a", '[tool.kubeactor]\nenv = "inner:Env"\n')
    assert find_project(below) == Project(tmp_path / "a", "inner:Env")
