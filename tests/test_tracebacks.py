"""How `kubeactor dev` logs."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kubeactor.ids import ActorId
from kubeactor.scope import SCOPE, RequestScope
from kubeactor.tracebacks import DevFormatter, is_users, user_traceback

USER = """
def fail(wrap):
    try:
        inner()
    except ZeroDivisionError as error:
        if not wrap:
            raise
        raise KeyError("wrapped") from error
def inner():
    1 / 0
"""


@pytest.fixture
def fail(tmp_path: Path) -> Callable[[bool], None]:
    """A function of a file that is the user's."""
    names: dict[str, Any] = {}
    exec(compile(USER, str(tmp_path / "mine.py"), "exec"), names)
    found: Callable[[bool], None] = names["fail"]
    return found


def raised(function: Callable[[], object]) -> BaseException:
    try:
        asyncio.run(asyncio.to_thread(function))  # frames of Python itself above
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def text_of(error: BaseException) -> str:
    return "".join(user_traceback(error))


def test_it_begins_at_the_users_frame(fail: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubeactor.tracebacks.PACKAGE", str(Path(__file__).parent))
    error = raised(lambda: fail(False))
    lines = text_of(error).splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert "mine.py" in lines[1]
    assert "in fail" in lines[1]
    assert lines[-1] == "ZeroDivisionError: division by zero"
    assert "asyncio" not in text_of(error)


def test_a_chain_is_kept_and_each_part_of_it_begins_at_the_users_frame(
    fail: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubeactor.tracebacks.PACKAGE", str(Path(__file__).parent))
    text = text_of(raised(lambda: fail(True)))
    assert text.count("Traceback") == 2
    assert "direct cause" in text
    assert "asyncio" not in text
    assert text.index("ZeroDivisionError") < text.index("KeyError")


def test_one_without_a_frame_of_the_user_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubeactor.tracebacks.PACKAGE", str(Path(__file__).parent))
    text = text_of(raised(lambda: int("x")))
    assert "asyncio" in text
    assert "test_tracebacks.py" in text


def test_python_packages_and_kubeactor_are_not_the_user(tmp_path: Path) -> None:
    assert is_users(str(tmp_path / "bank.py"))
    for file in (
        asyncio.__file__,
        "uvloop/loop.pyx",
        "/x/site-packages/starlette/routing.py",
        sys.modules["kubeactor"].__file__,
    ):
        assert not is_users(str(file))


def test_the_instance_and_its_method_stand_in_front() -> None:
    formatter = DevFormatter("%(levelname)s %(where)s%(name)s: %(message)s")
    record = logging.LogRecord("bank", logging.INFO, "bank.py", 1, "paid %d", (5,), None)
    assert formatter.format(record) == "INFO bank: paid 5"
    for scope, front in [(Labelled("alice", b"debit"), "A/alice.debit "), (Labelled("x\ny", b"-"), "A/x\\ny ")]:
        token = SCOPE.set(scope)
        try:
            assert formatter.format(record) == f"INFO {front}bank: paid 5"
        finally:
            SCOPE.reset(token)


class Labelled(RequestScope):
    """Has a label as a turn does."""

    __slots__ = ("label",)

    def __init__(self, name: str, method: bytes) -> None:
        super().__init__(None, parent=b"", bucket=0, deadline=0.0, root=b"")  # type: ignore[arg-type]
        binding, identity = ActorId("A", name.encode())
        self.label = b"%b\0%b\0%b\0" % (binding.encode(), identity, method)


def test_an_exception_is_logged_from_the_users_frame_on(
    fail: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubeactor.tracebacks.PACKAGE", str(Path(__file__).parent))
    error = raised(lambda: fail(False))
    record = logging.LogRecord("bank", logging.ERROR, "bank.py", 1, "oh", (), (type(error), error, error.__traceback__))
    lines = DevFormatter("%(where)s%(message)s").format(record).splitlines()
    assert lines[0] == "oh"
    assert "mine.py" in lines[2]
    assert lines[-1] == "ZeroDivisionError: division by zero"
