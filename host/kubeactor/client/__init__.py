"""Calls from other services: `Bank`'s actors over HTTP, with the types, results and errors that they have inside.

Needs httpx (`pip install 'kubeactor[client]'`) and loads nothing of the server.

module     responsibility
keys       the Idempotency-Key of a call
bindings   an `Env` whose stubs call through a client
request    a call as an HTTP request, an answer as a result or an error
retry      whether, and after which pause, to try again; nothing else knows of time
transport  how httpx is set up: bounds, dead peers, no surprises from the environment
aio, sync  the two clients
"""

from __future__ import annotations

try:
    import httpx as _  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("kubeactor.client needs httpx: pip install 'kubeactor[client]'", name="httpx") from error

from kubeactor.client.aio import connect
from kubeactor.client.keys import idempotency_key
from kubeactor.client.sync import SyncClient, connect_sync

__all__ = ["SyncClient", "connect", "connect_sync", "idempotency_key"]
