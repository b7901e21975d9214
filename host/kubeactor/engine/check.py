"""The built-in probe: can a shard be written, synced and read? No user code runs.

It takes the way of a turn's batch, through the same writes and the same gate, into one row of the shard that each
probe overwrites.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

from kubeactor.call import Reply
from kubeactor.engine.layout import CHECK, shard_prefix
from kubeactor.engine.store import StoreError, new_batch
from kubeactor.errors import ActorError, ActorFencedError, ActorOverloadedError, ActorShardUnavailableError

if TYPE_CHECKING:
    from kubeactor.engine.engine import Engine

__all__ = ["Checks"]

WAITING: Final = 64
VALUE_BYTES: Final = 16


class Checks:
    """The probes of an engine that are under way. Those of one shard share one write."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._waiting: dict[int, list[Reply]] = {}

    def run(self, shard: int, epoch: int, reply: Reply) -> None:
        """Probe a shard that is owned at that epoch; `reply` gets empty bytes or the error."""
        engine = self._engine
        if engine.stopping or engine.epochs.get(shard) != epoch:
            reply(ActorFencedError(f"shard {shard} is not served here at epoch {epoch}"))
        elif sum(map(len, self._waiting.values())) >= WAITING:
            reply(ActorOverloadedError(f"{WAITING} probes wait already"))
        elif shard in self._waiting:
            self._waiting[shard].append(reply)
        else:
            self._waiting[shard] = [reply]
            self._begin(shard)

    def _begin(self, shard: int) -> None:
        engine = self._engine
        key, value = shard_prefix(shard, CHECK), secrets.token_bytes(VALUE_BYTES)
        batch = new_batch()
        batch.put(key, value)
        engine.commits.write(
            batch, lambda: engine.gate.after(engine.gate.written, lambda: self._synced(shard, key, value)), None
        )

    def _synced(self, shard: int, key: bytes, value: bytes) -> None:
        waiting = self._waiting.pop(shard)
        outcome: bytes | ActorError = b""
        try:
            if self._engine.store.get(key) != value:
                outcome = ActorShardUnavailableError(f"shard {shard} does not give back what was written to it")
        except StoreError as error:
            self._engine.fail(str(error))
            return
        for reply in waiting:
            reply(outcome)
