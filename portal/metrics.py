"""The tables as Prometheus metrics, computed when they are asked for: a restart loses no count."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa
from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from portal.context import PortalDep
from store import portal_queries, queries, registry
from store.database import reading

router = APIRouter()


class TableMetrics(Collector):
    """Reads the tables at every scrape.

    Parameters
    ----------
    engine
        The database.
    alias
        Whose model is named.
    """

    def __init__(self, engine: sa.Engine, alias: str) -> None:
        self._engine = engine
        self._alias = alias

    def collect(self) -> Iterator[Metric]:
        """All metrics, of one state of the database."""
        with reading(self._engine) as connection:
            yield _alerts(connection)
            yield _rejected(connection)
            yield GaugeMetricFamily(
                "noctule_label_queue_length",
                "Requests for spectra that have no label yet.",
                value=portal_queries.n_open_requests(connection),
            )
            yield CounterMetricFamily(
                "noctule_labels",
                "Labels in the ledger.",
                value=portal_queries.n_labels(connection),
            )
            yield _latency(connection)
            yield _model(connection, self._alias)


def _alerts(connection: sa.Connection) -> Metric:
    found = portal_queries.totals(connection)
    family = CounterMetricFamily(
        "noctule_alerts", "Alerts read, by what came of them.", labels=["outcome"]
    )
    for outcome in ("classified", "not_evaluated", "duplicate", "rejected"):
        family.add_metric([outcome], getattr(found, outcome))
    return family


def _rejected(connection: sa.Connection) -> Metric:
    family = CounterMetricFamily(
        "noctule_rejected", "Packets that could not be read, by reason.", labels=["reason"]
    )
    for reason, count in portal_queries.rejects_by_reason(connection).items():
        family.add_metric([reason], count)
    return family


def _latency(connection: sa.Connection) -> Metric:
    family = GaugeMetricFamily(
        "noctule_latency_seconds",
        "From Kafka's time stamp to the committed row, of the newest batch.",
        labels=["quantile"],
    )
    found = queries.batch_latency_s(connection)
    for quantile, seconds in zip(("0.5", "0.99"), found or (), strict=False):
        family.add_metric([quantile], seconds)
    return family


def _model(connection: sa.Connection, alias: str) -> Metric:
    family = GaugeMetricFamily(
        "noctule_model_info", "1 for the model that an alias names.", labels=["alias", "version"]
    )
    champion = registry.champion(connection, alias)
    if champion is not None:
        family.add_metric([alias, champion["model_version"]], 1)
    return family


@router.get("/metrics")
def scrape(portal: PortalDep) -> Response:
    """Metrics for Prometheus."""
    metrics = CollectorRegistry(auto_describe=False)
    metrics.register(TableMetrics(portal.engine, portal.alias))
    return Response(generate_latest(metrics), media_type=CONTENT_TYPE_LATEST)
