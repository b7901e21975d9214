"""Metrics, read back as Prometheus would."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families

from kubeactor import metrics
from kubeactor.ingress.state import IngressStats
from kubeactor.metrics import make_registry


def samples(registry: CollectorRegistry) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = generate_latest(registry).decode()
    families = list(text_string_to_metric_families(text))
    again = openmetrics_parser.text_string_to_metric_families(openmetrics.generate_latest(registry).decode())
    assert {family.name for family in families} == {family.name for family in again}
    return {(s.name, tuple(s.labels.items())): s.value for family in families for s in family.samples}


def test_counters_of_an_engine_and_a_router_are_named_and_read_at_the_scrape() -> None:
    engine = SimpleNamespace(turns=5, syncs=2, sync_seconds=0.25, queue_calls=3, errors={"CodecError": 4})
    router, stats = SimpleNamespace(parked_calls=7), SimpleNamespace(calls=9, parked=1)
    registry = make_registry(engine=[engine], router=[stats, router], process=False)
    found = samples(registry)
    assert found["kubeactor_turns_total", ()] == 5
    assert found["kubeactor_wal_sync_seconds_total", ()] == 0.25
    assert found["kubeactor_queue_calls", ()] == 3
    assert found["kubeactor_turn_errors_total", (("name", "CodecError"),)] == 4
    assert found["kubeactor_router_calls_total", ()] == 9
    assert found["kubeactor_router_parked_calls", ()] == 7
    assert found["kubeactor_router_parks_total", ()] == 1
    engine.turns = 6
    assert samples(registry)["kubeactor_turns_total", ()] == 6


def test_what_a_part_does_not_count_gives_no_metric() -> None:
    assert samples(make_registry(process=False)) == {}
    assert samples(make_registry(engine=[object()], process=False)) == {}


def test_of_several_sources_the_first_that_has_the_counter_counts() -> None:
    registry = make_registry(engine=[SimpleNamespace(syncs=1), SimpleNamespace(syncs=2, turns=3)], process=False)
    assert samples(registry) == {("kubeactor_wal_syncs_total", ()): 1, ("kubeactor_turns_total", ()): 3}


def test_requests_are_counted_by_status_over_both_paths() -> None:
    stats = IngressStats()
    stats.ok = 10
    for status in (200, 404, 404, 503):
        stats.count(status)
    found = samples(make_registry(ingress=stats, process=False))
    by_code = {labels[0][1]: value for (name, labels), value in found.items() if name.endswith("requests_total")}
    assert by_code == {"200": 11, "404": 2, "503": 1}


@pytest.mark.parametrize(
    ("seconds", "bound"), [(0.0, 6.4e-05), (0.001, 0.001024), (0.2, 0.262144), (3600.0, float("inf"))]
)
def test_latencies_fall_into_the_bucket_that_holds_them(seconds: float, bound: float) -> None:
    stats = IngressStats()
    stats.took(seconds)
    found = samples(make_registry(ingress=stats, process=False))
    buckets = {
        float(labels[0][1]): value
        for (name, labels), value in found.items()
        if name == "kubeactor_ingress_call_seconds_bucket"
    }
    assert len(buckets) == 22
    assert {le for le, value in buckets.items() if value} == {le for le in buckets if le >= bound}
    assert found["kubeactor_ingress_call_seconds_count", ()] == 1
    assert found["kubeactor_ingress_call_seconds_sum", ()] == pytest.approx(seconds, abs=1e-6)


def test_the_process_is_shown_too() -> None:
    found = samples(make_registry())
    assert found["process_open_fds", ()] > 0


def test_no_name_is_used_twice() -> None:
    rows: list[Any] = [*metrics.ENGINE, *metrics.ROUTER, *metrics.INGRESS]
    assert len({row.name for row in rows}) == len(rows)
    assert all(row.name.startswith("kubeactor_") and not row.name.endswith("_total") for row in rows)
