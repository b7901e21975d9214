"""Metrics: plain counters of the parts, read and named when Prometheus scrapes; a call only adds to integers.

A part's counters are the attributes of its `stats`: numbers, or dicts from a label's value to a number. One that a part
does not have gives no metric.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal, NamedTuple, Protocol

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

__all__ = ["make_registry"]


class _Latencies(Protocol):
    """What the ingress counts: see `IngressStats`."""

    ok: int
    codes: dict[int, int]
    latency: list[int]
    latency_us: int


class _Metric(NamedTuple):
    attribute: str
    name: str
    help: str
    kind: Literal["counter", "gauge"] = "counter"
    label: str | None = None


ENGINE: Final = (
    _Metric("turns", "kubeactor_turns", "Turns that ended."),
    _Metric("errors", "kubeactor_turn_errors", "Turns that ended with an error, by its name.", label="name"),
    _Metric("commits", "kubeactor_commits", "Batches that were written."),
    _Metric("replays", "kubeactor_replays", "Calls answered with a recorded result."),
    _Metric("activations", "kubeactor_activations", "Instances that were activated."),
    _Metric("evictions", "kubeactor_evictions", "Idle instances that were dropped from memory."),
    _Metric("syncs", "kubeactor_wal_syncs", "Syncs of the write-ahead log."),
    _Metric("sync_seconds", "kubeactor_wal_sync_seconds", "Time spent in syncs of the write-ahead log."),
    _Metric("sync_errors", "kubeactor_wal_sync_errors", "Syncs of the write-ahead log that failed."),
    _Metric("stalls", "kubeactor_write_stalls", "Batches that had to wait for RocksDB."),
    _Metric("alarms", "kubeactor_alarms", "Alarm runs."),
    _Metric("alarm_failures", "kubeactor_alarm_failures", "Alarm runs that failed."),
    _Metric("messages", "kubeactor_messages", "Messages that were delivered."),
    _Metric("message_failures", "kubeactor_message_failures", "Deliveries of messages that failed."),
    _Metric("cycles", "kubeactor_cycles_broken", "Calls that failed to break a cycle."),
    _Metric("fenced", "kubeactor_fenced_calls", "Calls refused because of their shard or epoch."),
    _Metric("instances", "kubeactor_instances", "Instances in memory.", "gauge"),
    _Metric("queue_calls", "kubeactor_queue_calls", "Calls that wait for their turn.", "gauge"),
    _Metric("queue_bytes", "kubeactor_queue_bytes", "Bytes of calls that wait for their turn.", "gauge"),
    _Metric(
        "alarms_pending",
        "kubeactor_alarms_pending",
        "Alarms that wait in memory; further ones may be on disk.",
        "gauge",
    ),
    _Metric("alarms_parked", "kubeactor_alarms_parked", "Alarms that failed too often.", "gauge"),
    _Metric("messages_pending", "kubeactor_messages_pending", "Messages in outboxes.", "gauge"),
    _Metric("messages_parked", "kubeactor_messages_parked", "Messages that failed too often.", "gauge"),
    _Metric("leftovers", "kubeactor_leftovers", "Tasks of turns that ended and ignore their cancellation.", "gauge"),
)
ROUTER: Final = (
    _Metric("calls", "kubeactor_router_calls", "Calls that were forwarded."),
    _Metric("retries", "kubeactor_router_retries", "Calls that were sent again."),
    _Metric("parked", "kubeactor_router_parks", "Calls that had to wait for an owner."),
    _Metric("overloaded", "kubeactor_router_overloaded", "Calls refused since too many wait for an owner."),
    _Metric("expired", "kubeactor_router_expired", "Calls that were answered by their deadline."),
    _Metric("parked_calls", "kubeactor_router_parked_calls", "Calls that wait for an owner.", "gauge"),
    _Metric("parked_bytes", "kubeactor_router_parked_bytes", "Bytes of calls that wait for an owner.", "gauge"),
    _Metric("open_calls", "kubeactor_router_open_calls", "Calls without their final answer.", "gauge"),
)
WORKER: Final = (
    _Metric("restarts", "kubeactor_worker_restarts", "Times that the supervisor started this worker again."),
    _Metric("quarantined", "kubeactor_quarantined_instances", "Instances that killed their worker.", "gauge"),
    _Metric("last_death", "kubeactor_worker_last_death", "Why the worker before this one ended.", "gauge", "reason"),
)
INGRESS: Final = (
    _Metric("dropped", "kubeactor_ingress_replies_dropped", "Replies whose client had gone."),
    _Metric("cycles", "kubeactor_ingress_calls_repeated", "Root calls made again after a broken cycle."),
    _Metric("expired", "kubeactor_ingress_connections_expired", "Connections closed for being idle or slow."),
    _Metric("connections", "kubeactor_ingress_connections", "Open client connections.", "gauge"),
)

# Bit lengths of microseconds that are shown: 64 us, 128 us ... 67 s.
_FIRST_BITS: Final = 6
_LAST_BITS: Final = 26


def make_registry(
    *,
    engine: Sequence[object] = (),
    router: Sequence[object] = (),
    worker: Sequence[object] = (),
    ingress: _Latencies | None = None,
    process: bool = True,
) -> CollectorRegistry:
    """The registry that `/metrics` shows.

    Args:
        engine: what has the counters of a host's engine; of several objects the first that has one counts.
        router: what has those of a router: its `stats`, and itself.
        worker: what knows how often this worker was started again, and why.
        ingress: the `stats` of an ingress.
        process: whether memory, open files and garbage collection of this process are shown too.
    """
    registry = CollectorRegistry()
    registry.register(_Counters(((ENGINE, engine), (ROUTER, router), (WORKER, worker), (INGRESS, [ingress]))))
    if ingress is not None:
        registry.register(_Requests(ingress))
    if process:
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
    return registry


class _Counters(Collector):
    def __init__(self, parts: Iterable[tuple[tuple[_Metric, ...], Sequence[object]]]) -> None:
        self._parts = tuple(parts)

    def collect(self) -> Iterable[Metric]:
        for metrics, sources in self._parts:
            for metric in metrics:
                values = (getattr(source, metric.attribute, None) for source in sources)
                for value in itertools.islice((v for v in values if v is not None), 1):
                    yield _family(metric, value)


def _family(metric: _Metric, value: float | Mapping[str, float]) -> Metric:
    labels = () if metric.label is None else (metric.label,)
    family: CounterMetricFamily | GaugeMetricFamily
    if metric.kind == "counter":
        family = CounterMetricFamily(metric.name, metric.help, labels=labels)
    else:
        family = GaugeMetricFamily(metric.name, metric.help, labels=labels)
    if isinstance(value, Mapping):
        for label, number in dict(value).items():
            family.add_metric([str(label)], number)
    else:
        family.add_metric([], value)
    return family


class _Requests(Collector):
    def __init__(self, stats: _Latencies) -> None:
        self._stats = stats

    def collect(self) -> Iterable[Metric]:
        codes = dict(self._stats.codes)
        codes[200] = codes.get(200, 0) + self._stats.ok
        requests = CounterMetricFamily("kubeactor_ingress_requests", "Requests answered, by status.", labels=["code"])
        for code, number in sorted(codes.items()):
            requests.add_metric([str(code)], number)
        yield requests
        latency = HistogramMetricFamily("kubeactor_ingress_call_seconds", "Time of actor calls, retries included.")
        latency.add_metric([], _buckets(self._stats.latency), self._stats.latency_us / 1e6)
        yield latency


def _buckets(latency: list[int]) -> list[tuple[str, float]]:
    """Cumulative: times of bit length n are below 2**n microseconds."""
    shown: list[tuple[str, float]] = []
    total = sum(latency[:_FIRST_BITS])
    for bits in range(_FIRST_BITS, _LAST_BITS + 1):
        total += latency[bits]
        shown.append((str(2**bits / 1e6), total))
    return [*shown, ("+Inf", sum(latency))]
