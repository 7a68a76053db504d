"""Metrics for Prometheus, computed from the tables at every scrape: a restart loses no count.

The stream process reports its own, such as its lag and the times of its stages (:mod:`stream.metrics`).
"""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa
from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from active_learning.which_model import alias_of, champions
from lightcurves.reasons import RejectReason
from portal.context import PortalDep
from store import accounting_queries, request_queries
from store.database import reading
from store.tables import rejected
from watch.metrics import exposition, labelled

router = APIRouter()


class TableMetrics(Collector):
    """Reads the tables at every scrape.

    Parameters
    ----------
    engine
        The database.
    alias
        The alias whose model is reported: LSST's; those of other surveys are derived from it.
    now_ms
        The present, to which ages are counted, milliseconds since 1970 UTC.
    """

    def __init__(self, engine: sa.Engine, alias: str, now_ms: int) -> None:
        self._engine = engine
        self._alias = alias
        self._now_ms = now_ms

    def collect(self) -> Iterator[Metric]:
        """All metrics, from one snapshot of the database."""
        with reading(self._engine) as connection:
            yield from _books(connection)
            yield _rejected(connection)
            yield from _requests(connection, self._now_ms)
            yield CounterMetricFamily(
                "noctule_labels",
                "Labels in the ledger.",
                value=request_queries.n_labels(connection),
            )
            yield _latency(connection)
            yield from _last_batch(connection, self._now_ms)
            yield _model(connection, self._alias)


def _books(connection: sa.Connection) -> Iterator[Metric]:
    totals = accounting_queries.books(connection)
    text = "Alerts read, by outcome."
    outcomes = {outcome: getattr(totals, outcome) for outcome in accounting_queries.OUTCOMES}
    yield labelled(CounterMetricFamily, "noctule_alerts", text, "outcome", outcomes)
    yield CounterMetricFamily(
        "noctule_lost_offsets",
        "Offsets that Kafka removed before they were read.",
        value=totals.lost,
    )
    yield GaugeMetricFamily(
        "noctule_audit_imbalance",
        "Alerts read without an outcome, or outcomes without an alert; 0 if all is accounted for.",
        value=totals.imbalance,
    )


def _rejected(connection: sa.Connection) -> Metric:
    text = "Packets that could not be read, by reason."
    never = dict.fromkeys(map(str, RejectReason), 0)  # increase() misses a count that starts at 1
    counts = never | accounting_queries.by_reason(connection, rejected)
    return labelled(CounterMetricFamily, "noctule_rejected", text, "reason", counts)


def _requests(connection: sa.Connection, now_ms: int) -> Iterator[Metric]:
    queue = request_queries.request_queue(connection)
    yield CounterMetricFamily(
        "noctule_label_requests", "Requests for spectra made so far.", value=queue.n_made
    )
    yield GaugeMetricFamily(
        "noctule_label_queue_length",
        "Open requests for spectra.",
        value=queue.n_open,
    )
    yield GaugeMetricFamily(
        "noctule_label_queue_oldest_seconds",
        "Age of the oldest open request; 0 if there is none.",
        value=0.0 if queue.oldest_ms is None else max(0, now_ms - queue.oldest_ms) / 1000,
    )


def _latency(connection: sa.Connection) -> Metric:
    text = "Seconds from Kafka's time stamp to the committed row, in the newest batch."
    latencies_s = accounting_queries.batch_latency_s(connection)
    quantiles = dict(zip(("0.5", "0.99"), latencies_s or (), strict=False))
    return labelled(GaugeMetricFamily, "noctule_latency_seconds", text, "quantile", quantiles)


def _last_batch(connection: sa.Connection, now_ms: int) -> Iterator[Metric]:
    batch = accounting_queries.last_batch(connection)
    if batch is not None:
        yield GaugeMetricFamily(
            "noctule_last_batch_age_seconds",
            "Seconds since the newest batch was committed.",
            value=max(0, now_ms - batch.committed_ms) / 1000,
        )
        yield GaugeMetricFamily(
            "noctule_last_batch_alerts", "Alerts in the newest batch.", value=batch.n_read
        )


def _model(connection: sa.Connection, alias: str) -> Metric:
    family = GaugeMetricFamily(
        "noctule_model_info",
        "1 for the model that the alias stands for.",
        labels=["alias", "version"],
    )
    for survey, champion in champions(connection, alias).items():
        family.add_metric([alias_of(alias, survey), champion["model_version"]], 1)
    return family


@router.get("/metrics")
def scrape(portal: PortalDep) -> Response:
    """Metrics for Prometheus."""
    metrics = TableMetrics(portal.engine, portal.alias, portal.clock())
    return Response(exposition(metrics), media_type=CONTENT_TYPE_LATEST)
