"""How much memory this container may use, and whether the kernel killed one of its processes for using more.

Both cgroup versions, with and without a cgroup namespace:
https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

__all__ = ["memory_limit_bytes", "oom_kills", "resident_bytes"]

ROOT: Final = Path("/sys/fs/cgroup")
MEMBERSHIP: Final = Path("/proc/self/cgroup")
UNLIMITED: Final = 2**60  # v1 says "no limit" with a number of about 2**63
_OOM_KILL: Final = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


def memory_limit_bytes(root: Path = ROOT, membership: Path = MEMBERSHIP) -> int | None:
    """The smallest memory limit of this process's cgroup and those above it; None when there is none."""
    found = [
        int(text)
        for folder in _folders(root, membership)
        for name in ("memory.max", "memory.limit_in_bytes")
        if (text := _text(folder / name).strip()).isdigit()
    ]
    limit = min(found, default=UNLIMITED)
    return limit if limit < UNLIMITED else None


def oom_kills(root: Path = ROOT, membership: Path = MEMBERSHIP) -> int:
    """How many processes of this cgroup the kernel killed for lack of memory so far; 0 where it does not tell."""
    for folder in _folders(root, membership):
        for name in ("memory.events", "memory.oom_control"):
            if found := _OOM_KILL.search(_text(folder / name)):
                return int(found[1])
    return 0


def resident_bytes(pid: int, page_bytes: int = 4096) -> int:
    """The resident memory of a process; 0 when it is gone."""
    fields = _text(Path(f"/proc/{pid}/statm")).split()
    return int(fields[1]) * page_bytes if fields else 0


def _folders(root: Path, membership: Path) -> Iterator[Path]:
    for line in _text(membership).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        base = root / "memory" if controllers else root
        here = base / path.lstrip("/")
        # Without a cgroup namespace the path is the node's, of which only the root is mounted here.
        yield from (folder for folder in (here, *here.parents) if folder == base or base in folder.parents)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
