"""What Prometheus is told adds up to what the batches said."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import prometheus_client
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from store.accounting_queries import OUTCOMES
from stream.commit import BatchCounts
from stream.health import Monitor
from stream.lag import Lag
from stream.metrics import LATENCY_BOUNDS_S, StreamMetrics
from stream.stages import DRIVER_STAGES, WORKER_STAGES
from tests.stream.reports import report
from watch.metrics import Buckets

counts = st.builds(
    BatchCounts,
    n_read=st.integers(0, 100),
    n_classified=st.integers(0, 100),
    n_not_evaluated=st.integers(0, 100),
    n_duplicate=st.integers(0, 100),
    n_rejected=st.integers(0, 100),
    n_lost=st.integers(0, 9),
    n_requested=st.integers(0, 9),
    replay=st.booleans(),
)


def watched() -> tuple[StreamMetrics, Monitor]:
    monitor = Monitor(Lag({}, from_start=True), stalled_s=60.0)
    return StreamMetrics(monitor, slow_batch_s=10.0, clock=lambda: 1_773_200_000.0), monitor


def samples(metrics: StreamMetrics) -> dict[str, float]:
    """Name and labels to value, read as Prometheus reads it."""
    return {
        sample.name + "".join(f" {v}" for _, v in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(metrics.exposition().decode())
        for sample in family.samples
    }


@given(st.lists(st.lists(st.floats(0, 1e5) | st.sampled_from(LATENCY_BOUNDS_S), max_size=30)))
def test_buckets_are_those_of_the_library(batches: list[list[float]]) -> None:
    registry = prometheus_client.CollectorRegistry()
    oracle = prometheus_client.Histogram("h", "-", buckets=LATENCY_BOUNDS_S, registry=registry)
    mine = Buckets(LATENCY_BOUNDS_S)
    for values in batches:
        mine.add(np.array(values))
        for value in values:
            oracle.observe(value)
    buckets, total = mine.cumulated()
    (family,) = registry.collect()
    theirs = {s.labels["le"]: s.value for s in family.samples if s.name == "h_bucket"}
    assert dict(buckets) == theirs
    assert np.isclose(total, next(s.value for s in family.samples if s.name == "h_sum"))


@given(st.lists(counts, max_size=8))
def test_counters_are_the_sums_of_what_was_new(batches: list[BatchCounts]) -> None:
    metrics, _ = watched()
    for each in batches:
        metrics.observe(report(counts=each))
    found = samples(metrics)
    new = [asdict(each) for each in batches if not each.replay]

    def total(name: str) -> float:
        return float(sum(each[name] for each in new))

    for outcome in OUTCOMES:
        assert found[f"noctule_stream_alerts_total {outcome}"] == total(f"n_{outcome}")
    assert found["noctule_stream_batches_total new"] == len(new)
    assert found["noctule_stream_batches_total replayed"] == len(batches) - len(new)
    assert found["noctule_stream_lost_offsets_total"] == total("n_lost")
    assert found["noctule_stream_label_requests_total"] == total("n_requested")
    assert found["noctule_stream_batch_alerts_sum"] == total("n_read")
    assert found["noctule_stream_latency_seconds_count"] == 8 * len(new)
    for stage in (*WORKER_STAGES, *DRIVER_STAGES):
        assert found[f"noctule_stream_stage_seconds_count {stage}"] == len(batches)


def test_state_lag_and_health_are_those_of_the_moment() -> None:
    metrics, monitor = watched()
    assert samples(metrics)["noctule_stream_state starting"] == 1
    assert "noctule_stream_lag_seconds" not in samples(metrics)
    monitor.running()
    monitor.kafka({("alerts", 0): (0, 7), ("alerts", 1): (2, 2)})
    found = samples(metrics)
    assert found["noctule_stream_lag_messages 0 alerts"] == 7
    assert found["noctule_stream_lag_messages 1 alerts"] == 0
    assert [found[f"noctule_stream_state {state}"] for state in Monitor.states()] == [0, 1, 0, 0, 0]
    assert (found["noctule_stream_healthy"], found["noctule_stream_ready"]) == (1, 1)
    monitor.dead("why")
    found = samples(metrics)
    assert (found["noctule_stream_healthy"], found["noctule_stream_ready"]) == (0, 0)


def test_the_last_batch_names_its_model_and_slow_ones_are_counted() -> None:
    metrics, _ = watched()
    metrics.observe(report(total_s=10.0))
    metrics.observe(report(total_s=10.1, model_version="20260311-b07d42"))
    metrics.observe(report(model_version=""))
    found = samples(metrics)
    assert found["noctule_stream_model_info 20260311-b07d42"] == 1
    assert found["noctule_stream_slow_batches_total"] == 1
    assert found["noctule_stream_last_batch_timestamp_seconds"] == 1_773_200_000.0


def test_a_stage_that_nobody_knew_is_told_too() -> None:
    metrics, _ = watched()
    metrics.observe(report(stages_s={"dance": 3.0}))
    found: dict[str, Any] = samples(metrics)
    assert found["noctule_stream_stage_seconds_sum dance"] == 3.0
