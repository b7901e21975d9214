"""What fails where no caller hears of it: it belongs to the test during which it happened."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from kubeactor.call import ALARM, MESSAGE

__all__ = ["BackgroundError", "Watch"]

KEPT: Final = 100
# Of these a warning is a failure, too: an alarm that failed, a message that is parked.
WARNING_TOO: Final = ("kubeactor.alarms", "kubeactor.outbox")
FRONT_DOOR: Final = "kubeactor.ingress"


class BackgroundError(AssertionError):
    """Raised when something failed that no caller could hear of: an alarm, a message, a task, the engine itself."""


class Watch(logging.Handler):
    """Collects what fails in the background.

    Attributes:
        errors: one text each, at most 100.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.errors: list[str] = []
        self._first: BaseException | None = None

    @contextmanager
    def watching(self, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
        """Listen to the log of kubeactor and to what the loop finds that nobody awaited."""
        logger = logging.getLogger("kubeactor")
        before = loop.get_exception_handler()
        logger.addHandler(self)
        loop.set_exception_handler(self._uncaught)
        try:
            yield
        finally:
            gc.collect(1)  # a task that nobody awaited tells so when it goes
            loop.set_exception_handler(before)
            logger.removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record, unless a caller gets the same as its answer."""
        if record.levelno < logging.ERROR and record.name not in WARNING_TOO:
            return
        call = getattr(record, "call", None)
        if call is not None and (call.id is None or call.id.kind not in (ALARM, MESSAGE)):
            return
        if record.name == FRONT_DOOR and record.exc_info:
            return
        self._take(record.getMessage(), record.exc_info[1] if record.exc_info else None)

    def _uncaught(self, loop: asyncio.AbstractEventLoop, details: dict[str, Any]) -> None:
        self._take(details["message"], details.get("exception"))

    def _take(self, text: str, error: BaseException | None) -> None:
        if len(self.errors) >= KEPT:
            return
        self._first = self._first or error
        self.errors.append(text if error is None else f"{text} ({type(error).__name__}: {error})")

    def tell(self, failed: BaseException | None) -> None:
        """Fail for what was collected; a test that failed by itself gets it as a note.

        Raises:
            BackgroundError: when anything failed in the background.
        """
        if not self.errors:
            return
        text = "failed in the background (clear `actors.errors` in a test that wants this):\n" + "\n".join(self.errors)
        if failed is not None:
            failed.add_note(text)
            return
        raise BackgroundError(text) from self._first
