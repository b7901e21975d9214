"""How long faults were felt, as measured by the tests of this run: printed at its end and kept in a file."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterator
from pathlib import Path

__all__ = ["Times"]


class Times:
    """What was measured, by the name of the fault; seconds. Speed is told, never asserted."""

    def __init__(self) -> None:
        self._measured: dict[str, list[float]] = {}

    def add(self, fault: str, seconds: float) -> None:
        self._measured.setdefault(fault, []).append(seconds)

    def lines(self) -> Iterator[str]:
        """A Markdown table under the description of the machine; nothing if nothing was measured."""
        if not self._measured:
            return
        yield f"{os.cpu_count()} cores ({platform.machine()}), Linux {platform.release()}, kind with three nodes"
        yield ""
        yield "| what | runs | median | maximum |"
        yield "| --- | --- | --- | --- |"
        for fault, times in self._measured.items():
            yield f"| {fault} | {len(times)} | {statistics.median(times):.2f} s | {max(times):.2f} s |"

    def keep(self, path: Path) -> None:
        """Write them into a file."""
        if text := "\n".join(self.lines()):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")
