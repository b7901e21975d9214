"""What Prometheus reads of the operator."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

__all__ = ["ACTIONS", "ERRORS", "LAST_SUCCESS_AGE", "LEADER", "NAMESPACES", "RECONCILE_SECONDS", "REGISTRY"]

REGISTRY: Final = CollectorRegistry()
_PREFIX: Final = "kubeactor_operator"

RECONCILE_SECONDS: Final = Histogram(
    f"{_PREFIX}_reconcile_seconds",
    "One look at a namespace and what was done about it",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
    registry=REGISTRY,
)
ERRORS: Final = Counter(
    f"{_PREFIX}_reconcile_errors_total", "Looks that ended with an error, by its kind", ["kind"], registry=REGISTRY
)
ACTIONS: Final = Counter(
    f"{_PREFIX}_actions_total", "Writes to the API server and grants to hosts", ["action"], registry=REGISTRY
)
NAMESPACES: Final = Gauge(
    f"{_PREFIX}_namespaces", "ActorNamespaces by condition and its status", ["condition", "status"], registry=REGISTRY
)
LAST_SUCCESS_AGE: Final = Gauge(
    f"{_PREFIX}_last_successful_reconcile_age_seconds",
    "Of the namespace that waited longest since its last successful reconcile",
    registry=REGISTRY,
)
LEADER: Final = Gauge(f"{_PREFIX}_leader", "1 while this replica holds the lease", registry=REGISTRY)
