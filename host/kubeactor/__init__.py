"""kubeactor: stateful actors in plain Python.

One owner per name, one turn at a time, durable before reply, applied once.
"""

from __future__ import annotations

from kubeactor.python import refuse_old

refuse_old()

from kubeactor.actor import Actor, AlarmInfo, Message, method
from kubeactor.context import Context
from kubeactor.deprecation import KubeactorDeprecationWarning
from kubeactor.env import Binding, Env, Secret
from kubeactor.errors import (
    ActorArgumentError,
    ActorError,
    ActorFencedError,
    ActorFetchTimeoutError,
    ActorMethodError,
    ActorMethodTimeoutError,
    ActorOutputGateError,
    ActorOverloadedError,
    ActorPrivateMethodError,
    ActorQuarantinedError,
    ActorQuotaError,
    ActorReentrancyError,
    ActorShardUnavailableError,
    ActorUnauthenticatedError,
    ActorUnawaitedCallError,
    ActorUnknownBindingError,
    ActorUnknownMethodError,
    BlockConcurrencyTimeoutError,
    BodyTooLargeError,
    CodecError,
    IdempotencyConflictError,
    Problem,
    StorageLimitError,
    StorageTypeError,
)
from kubeactor.ids import ActorId
from kubeactor.key import Key
from kubeactor.storage import Storage
from kubeactor.stub import id_of

__all__ = [
    "Actor",
    "ActorArgumentError",
    "ActorError",
    "ActorFencedError",
    "ActorFetchTimeoutError",
    "ActorId",
    "ActorMethodError",
    "ActorMethodTimeoutError",
    "ActorOutputGateError",
    "ActorOverloadedError",
    "ActorPrivateMethodError",
    "ActorQuarantinedError",
    "ActorQuotaError",
    "ActorReentrancyError",
    "ActorShardUnavailableError",
    "ActorUnauthenticatedError",
    "ActorUnawaitedCallError",
    "ActorUnknownBindingError",
    "ActorUnknownMethodError",
    "AlarmInfo",
    "Binding",
    "BlockConcurrencyTimeoutError",
    "BodyTooLargeError",
    "CodecError",
    "Context",
    "Env",
    "IdempotencyConflictError",
    "Key",
    "KubeactorDeprecationWarning",
    "Message",
    "Problem",
    "Secret",
    "Storage",
    "StorageLimitError",
    "StorageTypeError",
    "id_of",
    "method",
]
