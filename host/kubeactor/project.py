"""`[tool.kubeactor]` of a pyproject.toml: what `kubeactor dev`, `kubeactor check` and the test kit serve unasked."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

__all__ = ["FILE", "Project", "ProjectError", "find_project", "read_project"]

FILE: Final = "pyproject.toml"
FILE_BYTES: Final = 1024 * 1024
FOLDERS_MAX: Final = 64


class ProjectError(Exception):
    """Raised when a pyproject.toml can't be read or says something else; one sentence that says what to write."""


class Project(NamedTuple):
    """What a pyproject.toml names.

    Attributes:
        folder: of the pyproject.toml; it leads the Python path.
        env: `module:Class` of the Env, which gives the bindings, or of one actor.
        front_door: `module:app` or None.
    """

    folder: Path
    env: str
    front_door: str | None = None


class _Section(msgspec.Struct, rename="kebab", forbid_unknown_fields=True):
    env: str
    front_door: str | None = None


class _Tool(msgspec.Struct):
    kubeactor: _Section | None = None


class _File(msgspec.Struct):
    tool: _Tool = msgspec.field(default_factory=_Tool)


def read_project(folder: Path) -> Project | None:
    """What the pyproject.toml of that folder names; None when there is none, or no `[tool.kubeactor]` in it.

    Raises:
        ProjectError: when it can't be read, or its section is not of this form.
    """
    file = folder / FILE
    try:
        with file.open("rb") as opened:
            text = opened.read(FILE_BYTES + 1)
        if len(text) > FILE_BYTES:
            raise ProjectError(f"{file} is larger than {FILE_BYTES} bytes")
        section = msgspec.convert(tomllib.loads(text.decode()), _File).tool.kubeactor
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ProjectError(f"{file} can't be read: {error}") from error
    except msgspec.ValidationError as error:
        raise ProjectError(
            f'{file}: [tool.kubeactor] holds env = "bank:Bank" and, if there is one, front-door = "bank:app": {error}'
        ) from error
    return None if section is None else Project(folder, section.env, section.front_door)


def find_project(start: Path) -> Project | None:
    """The same of the nearest folder with a `[tool.kubeactor]`, from `start` upwards.

    Raises:
        ProjectError: when one on the way can't be read.
    """
    for folder in (start, *start.parents)[:FOLDERS_MAX]:
        if (found := read_project(folder)) is not None:
            return found
    return None
