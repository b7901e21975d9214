"""The pytest plugin: the fixture `actors`, and async tests that take it run without a marker.

pytest loads this module in every run wherever kubeactor is installed, so it lies outside of that package, and imports
nothing of it until a test asks for the fixture. The fixture's value serves inside of the test only, on the loop that
the test runs on: that of pytest-asyncio or anyio where they run it, else one of our own.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from kubeactor.application import Application
    from kubeactor.testing import Actors

__all__ = ["actors"]

ACTORS: pytest.StashKey[Actors[Any]] = pytest.StashKey()
SERVED: pytest.StashKey[dict[Path, Application]] = pytest.StashKey()
MARK = b"[tool.kubeactor]"


def pytest_configure(config: pytest.Config) -> None:
    """The folder of a project leads the Python path, as under `kubeactor dev`."""
    config.stash[SERVED] = {}
    for folder in (config.rootpath, config.invocation_params.dir):
        file = folder / "pyproject.toml"
        if file.is_file() and MARK in file.read_bytes():
            _lead_path(folder)


def _lead_path(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


@pytest.fixture
def actors(request: pytest.FixtureRequest) -> Iterator[Actors[Any]]:
    """A host of its own for one `async def` test: what `[tool.kubeactor]` of the nearest pyproject.toml names."""
    from kubeactor.application import UserCodeError
    from kubeactor.project import ProjectError
    from kubeactor.testing import Actors

    function = getattr(request.node, "obj", None)
    if hasattr(function, "hypothesis"):
        pytest.fail("each example of hypothesis wants actors of its own: `async with testing.run(Bank)`", pytrace=False)
    if not inspect.iscoroutinefunction(function):
        pytest.fail(f"actors serve on the loop of an async test: write `async def {request.node.name}`", pytrace=False)
    try:
        made = Actors[Any](_application(request.config, request.node.path.parent))
    except (UserCodeError, ProjectError) as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None  # pytest shows what it comes from, too
    request.node.stash[ACTORS] = made
    yield made
    del request.node.stash[ACTORS]


def _application(config: pytest.Config, folder: Path) -> Application:
    from kubeactor.application import Application, UserCodeError
    from kubeactor.project import find_project

    served = config.stash[SERVED]
    if folder in served:
        return served[folder]
    if (project := find_project(folder)) is None:
        raise UserCodeError(
            f'{folder} and the folders above have no pyproject.toml with [tool.kubeactor] env = "bank:Bank";'
            " write one, or use `async with testing.run(Bank) as actors:`"
        )
    _lead_path(project.folder)
    served[folder] = Application.load([project.env], project.front_door)
    return served[folder]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Whoever runs the test runs it with its actors serving."""
    made = item.stash.get(ACTORS, None)
    if made is None:
        return (yield)
    function = item.obj  # type: ignore[attr-defined]

    @functools.wraps(function)
    async def serving(*args: Any, **kwargs: Any) -> Any:
        async with made:
            return await function(*args, **kwargs)

    item.obj = serving  # type: ignore[attr-defined]
    try:
        return (yield)
    finally:
        item.obj = function  # type: ignore[attr-defined]


@pytest.hookimpl
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> object | None:
    """Run a test that takes actors and that no other plugin runs."""
    if pyfuncitem.stash.get(ACTORS, None) is None or not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    import asyncio

    from kubeactor.engine.loop import new_event_loop

    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(pyfuncitem.obj(**arguments))
    return True
