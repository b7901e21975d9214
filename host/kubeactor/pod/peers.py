"""The secret that the hosts and ingresses of a namespace share, as the files `current` and `previous` of a folder.

kubelet replaces the files when the Secret changes, so they are read again every second. Hosts accept both tokens;
whoever dials uses `current`. So a rotation that writes the new token as `previous` first breaks no connection.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from kubeactor.pod.identity import PodError

__all__ = ["Peers"]

POLL_S: Final = 1.0
TOKEN_BYTES: Final = 4096

log = logging.getLogger(__name__)


class Peers:
    """The tokens as they are now.

    Attributes:
        current: what to say.
        accepted: what to accept; it has `current`, and `previous` if there is one.
        trouble: what is wrong with the files, one sentence; empty if nothing. The last good tokens stay in use.
    """

    def __init__(self, folder: Path) -> None:
        """Read them.

        Raises:
            PodError: when there is no `current`.
        """
        self._folder = folder
        self.trouble = ""
        try:
            self.current, self.accepted = self._read()
        except (OSError, ValueError) as error:
            raise PodError(_sentence(folder, error)) from error

    @property
    def fingerprints(self) -> list[str]:
        """The first 16 hex digits of the SHA-256 of each accepted token; that of `current` first."""
        return [hashlib.sha256(token).hexdigest()[:16] for token in self.accepted]

    async def run(self, changed: Callable[[], None]) -> None:
        """Look every second until cancelled; `changed` is called when the tokens are others."""
        while True:
            await asyncio.sleep(POLL_S)
            if self.poll():
                changed()

    def poll(self) -> bool:
        """Look once; whether the tokens are others."""
        try:
            found = self._read()
        except (OSError, ValueError) as error:
            trouble = f"{_sentence(self._folder, error)}; the last good ones stay in use"
            if trouble != self.trouble:
                log.error("%s", trouble)
            self.trouble = trouble
            return False
        self.trouble = ""
        if found == (self.current, self.accepted):
            return False
        self.current, self.accepted = found
        log.info("the peer credentials changed: %s", ", ".join(self.fingerprints))
        return True

    def _read(self) -> tuple[bytes, tuple[bytes, ...]]:
        current = _token(self._folder / "current")
        if not current:
            raise ValueError("current is empty")
        try:
            previous = _token(self._folder / "previous")
        except FileNotFoundError:
            previous = b""
        return current, tuple(dict.fromkeys(token for token in (current, previous) if token))


def _token(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(TOKEN_BYTES + 1)
    if len(data) > TOKEN_BYTES:
        raise ValueError(f"{path.name} has more than {TOKEN_BYTES} bytes")
    return data.strip()


def _sentence(folder: Path, error: Exception) -> str:
    return f"the peer credentials in {folder} can't be read: {error}"
