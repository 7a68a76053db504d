"""Grafana's dashboards as code: ``python -m deploy.dashboards`` writes ``deploy/grafana/dashboards``.

A test compares the two, and another checks that the metrics in every query exist.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).parent / "grafana" / "dashboards"

_SOURCE: Final = {"type": "prometheus", "uid": "prometheus"}
_WIDTH, _HEIGHT, _COLUMNS = 8, 7, 3
_GREEN, _RED = "green", "red"


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes
    ----------
    title, description
        What it shows, and how to read it.
    queries
        Legend to expression.
    unit
        One of Grafana's: ``s``, ``short``, ``cps`` (per second), ...
    kind
        ``timeseries``, ``stat``, ``table`` or ``heatmap``.
    bad
        The panel turns red at this value and above; where it is negative, below its absolute value.
    stacked
        Whether the lines of a time series are stacked.
    """

    title: str
    description: str
    queries: dict[str, str]
    unit: str = "short"
    kind: str = "timeseries"
    bad: float | None = None
    stacked: bool = False

    def to_json(self, number: int) -> dict[str, Any]:
        """Return Grafana's form; `number` is the panel's place, from 0."""
        return {
            "id": number + 1,
            "title": self.title,
            "description": self.description,
            "type": self.kind,
            "datasource": _SOURCE,
            "gridPos": {
                "x": number % _COLUMNS * _WIDTH,
                "y": number // _COLUMNS * _HEIGHT,
                "w": _WIDTH,
                "h": _HEIGHT,
            },
            "fieldConfig": {"defaults": self._defaults(), "overrides": []},
            "options": {"colorMode": "background"} if self.kind == "stat" else {},
            "targets": [self._target(*each, at) for at, each in enumerate(self.queries.items())],
        }

    def _defaults(self) -> dict[str, Any]:
        defaults: dict[str, Any] = {"unit": self.unit}
        if self.stacked:
            defaults["custom"] = {"stacking": {"mode": "normal"}, "fillOpacity": 40}
        if self.bad is not None:
            low, high = (_RED, _GREEN) if self.bad < 0 else (_GREEN, _RED)
            steps = [{"color": low, "value": None}, {"color": high, "value": abs(self.bad)}]
            defaults["thresholds"] = {"mode": "absolute", "steps": steps}
        return defaults

    def _target(self, legend: str, expression: str, at: int) -> dict[str, Any]:
        table = {"format": "table", "instant": True} if self.kind == "table" else {}
        heat = {"format": "heatmap"} if self.kind == "heatmap" else {}
        return {
            "refId": chr(ord("A") + at),
            "datasource": _SOURCE,
            "expr": expression,
            "legendFormat": legend,
            **table,
            **heat,
        }


def _quantiles(histogram: str) -> dict[str, str]:
    return {
        f"p{round(100 * q)}": f"histogram_quantile({q}, sum by (le) (rate({histogram}_bucket[5m])))"
        for q in (0.5, 0.9, 0.99)
    }


NIGHT: Final = (
    Panel("Alerts by outcome", "From the tables, so that a restart loses nothing.",
          {"{{outcome}}": "sum by (outcome) (rate(noctule_alerts_total[1m]))"}, "cps", stacked=True),
    Panel("From arrival to score", "In the newest batch.",
          {"p{{quantile}}": "noctule_latency_seconds"}, "s"),
    Panel("Since the last batch", "Grows during the day, when no alerts come.",
          {"age": "noctule_last_batch_age_seconds"}, "s", "stat"),
    Panel("Accounting", "Alerts without an outcome, and offsets that Kafka removed unread: both must be 0.",
          {"out of balance": "noctule_audit_imbalance", "lost": "noctule_lost_offsets_total"},
          kind="stat", bad=1),
    Panel("Rejected by reason", "In the last hour; docs/reasons.md explains the reasons.",
          {"{{reason}}": "increase(noctule_rejected_total[1h]) > 0"}, stacked=True),
    Panel("Alerts in the newest batch", "A full batch means that more alerts are waiting.",
          {"alerts": "noctule_last_batch_alerts"}),
    Panel("Label requests", "Made, open, answered.",
          {"made": "noctule_label_requests_total", "open": "noctule_label_queue_length",
           "labels": "noctule_labels_total"}),
    Panel("Oldest open request", "Red after two weeks.",
          {"age": "noctule_label_queue_oldest_seconds"}, "s", "stat", bad=14 * 86_400),
    Panel("Model in use", "The model of the alias, and the one that the stream scores with.",
          {"": "noctule_model_info", "stream": "noctule_stream_model_info"}, kind="table"),
)  # fmt: skip
"""The outcome of the night, from the tables."""

STREAM: Final = (
    Panel("Health", "Healthy and ready, as in /healthz and /readyz.",
          {"healthy": "noctule_stream_healthy", "ready": "noctule_stream_ready"}, kind="stat", bad=-1),
    Panel("State", "What the process is doing.",
          {"{{state}}": "noctule_stream_state"}, stacked=True),
    Panel("Alerts per second", "Counted by the process, so they start at 0 after a restart.",
          {"{{outcome}}": "sum by (outcome) (rate(noctule_stream_alerts_total[1m]))"}, "cps",
          stacked=True),
    Panel("Lag in messages", "In Kafka, but not yet in a batch.",
          {"{{topic}} {{partition}}": "noctule_stream_lag_messages"}, stacked=True),
    Panel("Lag in seconds", "Age of the oldest waiting message.",
          {"oldest": "noctule_stream_lag_seconds",
           "since the last batch": "time() - noctule_stream_last_batch_timestamp_seconds"}, "s"),
    Panel("Kafka to committed row", "All alerts of the last five minutes.",
          _quantiles("noctule_stream_latency_seconds"), "s"),
    Panel("Where the time goes", "Seconds of work per second, by stage; threads work in parallel.",
          {"{{stage}}": "sum by (stage) (rate(noctule_stream_stage_seconds_sum[5m]))"}, "s",
          stacked=True),
    Panel("Longest stage", "99 of 100 batches spend less time than this in a stage.",
          {"{{stage}}": "histogram_quantile(0.99, sum by (stage, le) "
                        "(rate(noctule_stream_stage_seconds_bucket[5m])))"}, "s"),
    Panel("Batches", "Duration; the log says where the time of a slow one went.",
          {**_quantiles("noctule_stream_batch_seconds"),
           "slow, in an hour": "increase(noctule_stream_slow_batches_total[1h])"}, "s"),
    Panel("Batch sizes", "Batches by their number of alerts.",
          {"{{le}}": "sum by (le) (increase(noctule_stream_batch_alerts_bucket[1m]))"},
          kind="heatmap"),
    Panel("Trouble", "Restarts, replayed batches and lost offsets, per hour.",
          {"restarts": "increase(noctule_stream_restarts_total[1h])",
           "replayed": 'increase(noctule_stream_batches_total{kind="replayed"}[1h])',
           "lost": "increase(noctule_stream_lost_offsets_total[1h])"}),
    Panel("Label requests per hour", "Spectra that the stream requested.",
          {"requests": "increase(noctule_stream_label_requests_total[1h])"}),
)  # fmt: skip
"""The work of the stream process, from its own counts."""

LEARNER: Final = (
    Panel("Health", "Healthy and ready, as in /healthz and /readyz.",
          {"healthy": "noctule_learner_healthy", "ready": "noctule_learner_ready"}, kind="stat",
          bad=-1),
    Panel("State", "What the process is doing.",
          {"{{state}}": "noctule_learner_state"}, stacked=True),
    Panel("Since the last look", "Grows while it trains; otherwise at most about learning.poll_s.",
          {"age": "time() - noctule_learner_last_look_timestamp_seconds"}, "s"),
    Panel("New labels", "Objects labelled since the latest trial; training starts at "
          "learning.retrain_every_labels.",
          {"labels": "noctule_learner_new_labels"}),
    Panel("Trainings by outcome", "In the last day.",
          {"{{outcome}}": "sum by (outcome) (increase(noctule_learner_trainings_total[1d]))"},
          stacked=True),
    Panel("Duration of trainings", "From reading the labels to the verdict.",
          {"last": "noctule_learner_last_training_seconds",
           "mean of a day": "sum(rate(noctule_learner_training_seconds_sum[1d])) "
                            "/ sum(rate(noctule_learner_training_seconds_count[1d]))"}, "s"),
)  # fmt: skip
"""The work of the learner, from its own counts."""

DASHBOARDS: Final = {
    "night": ("noctule: the night", NIGHT),
    "stream": ("noctule: the stream", STREAM),
    "learner": ("noctule: the learner", LEARNER),
}
"""File to title and panels."""


def dashboard(name: str) -> dict[str, Any]:
    """Return one of `DASHBOARDS` in Grafana's format."""
    title, panels = DASHBOARDS[name]
    return {
        "uid": f"noctule-{name}",
        "title": title,
        "schemaVersion": 39,
        "version": 1,
        "refresh": "5s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "utc",
        "tags": ["noctule"],
        "templating": {"list": []},
        "annotations": {"list": []},
        "panels": [panel.to_json(number) for number, panel in enumerate(panels)],
    }


def text_of(name: str) -> str:
    """Return the file's text."""
    return json.dumps(dashboard(name), indent=2) + "\n"


if __name__ == "__main__":
    for each in DASHBOARDS:
        (FOLDER / f"{each}.json").write_text(text_of(each))
