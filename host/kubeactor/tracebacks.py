"""How `kubeactor dev` logs: the instance in front, and tracebacks that begin at the user's own frame."""

from __future__ import annotations

import logging
import sysconfig
import traceback
from pathlib import Path
from types import TracebackType
from typing import Final

from kubeactor.scope import SCOPE, instance_text

__all__ = ["DevFormatter", "is_users", "label_text", "user_traceback"]

PACKAGE: Final = str(Path(__file__).parent)
STDLIB: Final = sysconfig.get_path("stdlib")
CHAIN_MAX: Final = 16


class DevFormatter(logging.Formatter):
    """`INFO ACCOUNT/alice.debit bank: the text`: what a method logs has its instance and method in front."""

    def format(self, record: logging.LogRecord) -> str:
        """One record."""
        scope = SCOPE.get()
        label = scope.label if scope is not None else b""
        record.where = f"{label_text(label)} " if label else ""
        return super().format(record)

    def formatException(  # noqa: N802 - logging's name
        self,
        ei: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None],
    ) -> str:
        """The traceback from the user's frame on."""
        return "".join(user_traceback(ei[1])).rstrip("\n") if ei[1] is not None else ""


def label_text(label: bytes) -> str:
    """`ACCOUNT/alice.debit`, of the label of a turn (`BINDING NUL identity NUL method NUL`)."""
    instance, _, method = label.rstrip(b"\0").rpartition(b"\0")
    text = instance_text(instance) + ("" if method == b"-" else f".{method.decode(errors='replace')}")
    return text.encode("unicode_escape").decode()


def is_users(filename: str) -> bool:
    """Whether a frame is of neither kubeactor, nor Python, nor an installed package."""
    installed = "site-packages" in filename or filename.endswith(".pyx")  # Cython leaves the path out: uvloop/loop.pyx
    return not (installed or filename.startswith((PACKAGE, STDLIB, "<frozen")))


def user_traceback(error: BaseException) -> list[str]:
    """As Python prints it, without the frames above the user's first one; whole where none is the user's."""
    whole = traceback.TracebackException.from_exception(error, compact=True)
    chain = _chain(whole)
    if any(is_users(frame.filename) for each in chain for frame in each.stack):
        for each in chain:
            first = next((n for n, frame in enumerate(each.stack) if is_users(frame.filename)), len(each.stack))
            each.stack = traceback.StackSummary.from_list(each.stack[first:])
    return list(whole.format())


def _chain(whole: traceback.TracebackException) -> list[traceback.TracebackException]:
    found: list[traceback.TracebackException] = []
    each: traceback.TracebackException | None = whole
    while each is not None and len(found) < CHAIN_MAX:
        found.append(each)
        each = each.__cause__ or each.__context__
    return found
