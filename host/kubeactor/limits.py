"""Every bound of the product in one place, so that none hides in the code that enforces it.

Names end in their unit. The figures are the contract's (docs/contract.md, "Deadlines and limits").
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "ALARM_ATTEMPTS",
    "ALARM_TIMEOUT_MAX_S",
    "BODY_BYTES",
    "CALL_DEFAULT_S",
    "CALL_MAX_S",
    "CHAIN_DEPTH",
    "CLIENT_KEY_BYTES",
    "HOST_QUEUE_BYTES",
    "HOST_QUEUE_CALLS",
    "INGRESS_PARKED_BYTES",
    "INGRESS_PARKED_CALLS",
    "INSTANCE_QUEUE_BYTES",
    "INSTANCE_QUEUE_TURNS",
    "INSTANCES",
    "KEY_BYTES",
    "KEYS_PER_OPERATION",
    "LEFTOVERS",
    "LIST_BYTES",
    "LIST_LIMIT",
    "METHOD_TIMEOUT_S",
    "MESSAGE_ATTEMPTS",
    "NAME_BYTES",
    "OUTGOING_CALLS",
    "RESULTS_PER_INSTANCE",
    "RETRY_FIRST_S",
    "RETRY_JITTER",
    "RETRY_MAX_S",
    "SHARD_PARKED_CALLS",
    "SHARDS_DEFAULT",
    "SHARDS_MAX",
    "TURN_BYTES",
    "VALUE_BYTES",
]

MIB: Final = 1024 * 1024

NAME_BYTES: Final = 1024
CLIENT_KEY_BYTES: Final = 256
SHARDS_DEFAULT: Final = 256
SHARDS_MAX: Final = 4096

BODY_BYTES: Final = 4 * MIB
KEY_BYTES: Final = 2048
VALUE_BYTES: Final = 2 * MIB
TURN_BYTES: Final = 16 * MIB
KEYS_PER_OPERATION: Final = 1000
LIST_LIMIT: Final = 1000
LIST_BYTES: Final = 16 * MIB

CALL_DEFAULT_S: Final = 60.0
CALL_MAX_S: Final = 300.0
METHOD_TIMEOUT_S: Final = 30.0
ALARM_TIMEOUT_MAX_S: Final = 900.0

INSTANCE_QUEUE_TURNS: Final = 256
INSTANCE_QUEUE_BYTES: Final = 8 * MIB
HOST_QUEUE_CALLS: Final = 20_000
HOST_QUEUE_BYTES: Final = 256 * MIB
INGRESS_PARKED_CALLS: Final = 10_000
INGRESS_PARKED_BYTES: Final = 64 * MIB
SHARD_PARKED_CALLS: Final = 1000

CHAIN_DEPTH: Final = 16
OUTGOING_CALLS: Final = 64
INSTANCES: Final = 100_000
LEFTOVERS: Final = 100
RESULTS_PER_INSTANCE: Final = 100_000

ALARM_ATTEMPTS: Final = 10
MESSAGE_ATTEMPTS: Final = 10
RETRY_FIRST_S: Final = 1.0
RETRY_MAX_S: Final = 300.0
RETRY_JITTER: Final = 0.25
