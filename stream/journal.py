"""The log of a batch: its counts, its rejected packets, and the time by stage of a slow one.

Every line carries ``run_id``, ``batch_id`` and ``model_version`` as fields, for a log in JSON.
"""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from stream.stages import DRIVER_STAGES, WORKER_STAGES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream.report import BatchReport

LOG: Final = logging.getLogger("noctule")

REST: Final = "rest"
_THREADS: Final = ("decode", "features", "score", "rows")  # overlap with "wait" and each other
_PASSED: Final = tuple(stage for stage in (*WORKER_STAGES, *DRIVER_STAGES) if stage not in _THREADS)
_HINTS: Final[Mapping[str, str]] = {
    "look": "many alerts wait, and urgent ones are looked for first: see stream.priority",
    "wait": "Kafka delivered slowly: see its brokers and the network",
    "decode": "more cores and stream.threads help, or fewer alerts in a batch",
    "features": "more cores and stream.threads help, or fewer alerts in a batch",
    "score": "more cores and stream.threads help, or a smaller model",
    "rows": "more cores and stream.threads help, or fewer alerts in a batch",
    "write": "the disk below store.delta is slow",
    "handover": "Spark is busy, or starting its workers: see logs/spark.log",
    "sql": "the database is slow, or another writer held its lock",
    "delta": "the disk below store.delta is slow, or the table has many files: noctule maintain",
    "kafka": "the brokers acknowledge slowly",
    REST: "no stage covers it: the machine was busy with something else",
}


def log_batch(report: BatchReport, slow_batch_s: float) -> None:
    """Log a batch.

    Parameters
    ----------
    report
        The batch.
    slow_batch_s
        For a batch that took longer, the log also gives the time by stage.
    """
    counts, number = report.counts, report.batch_id
    known = fields_of(report)
    if counts.replay:
        LOG.info("batch %d: committed before, nothing written twice", number, extra=known)
    else:
        LOG.info(
            "batch %d: %d read, %d scored, %d not evaluated, %d duplicate, %d rejected, %d requested",
            number, counts.n_read, counts.n_classified, counts.n_not_evaluated, counts.n_duplicate,
            counts.n_rejected, counts.n_requested, extra=known,
        )  # fmt: skip
        if counts.n_early:
            LOG.info(
                "batch %d: many alerts wait, so %d urgent ones were scored before their turn",
                number, counts.n_early, extra=known,
            )  # fmt: skip
        _log_requested(report)
        _log_differing(report)
        _log_rejected(report)
    if counts.n_lost:
        LOG.warning(
            "batch %d: Kafka had removed %d offsets before they were read",
            number, counts.n_lost, extra=_ids(report),
        )  # fmt: skip
    if report.total_s > slow_batch_s:
        LOG.warning("%s", explain(report), extra=known)


def _ids(report: BatchReport) -> dict[str, Any]:
    return {
        "run_id": report.run_id,
        "batch_id": report.batch_id,
        "model_version": report.model_version,
    }


def fields_of(report: BatchReport) -> dict[str, Any]:
    """Return the figures of a report, as fields of a log record."""
    return {
        **_ids(report),
        **asdict(report.counts),
        "total_s": round(report.total_s, 3),
        "stages_s": {stage: round(spent, 3) for stage, spent in report.stages_s.items()},
        "slowest_stage": slowest(report),
        "latency_max_s": round(float(report.latency_s.max()), 3) if report.latency_s.size else None,
    }


def _log_requested(report: BatchReport) -> None:
    for request in report.requested:
        LOG.info(
            "batch %d: a spectrum of object %d is wanted, for alert %d",
            report.batch_id, request.object_id, request.dia_source_id,
            extra={**_ids(report), **request._asdict()},
        )  # fmt: skip


def _log_differing(report: BatchReport) -> None:
    for repeat in report.differing:
        LOG.warning(
            "batch %d: alert %d came again, at %s[%d] offset %d, with another %s",
            report.batch_id, *repeat[1:], extra={**_ids(report), **repeat._asdict()},
        )  # fmt: skip


def _log_rejected(report: BatchReport) -> None:
    for packet in report.rejected:
        LOG.warning(
            "batch %d: rejected %s[%d] offset %d: %s",
            report.batch_id, packet.topic, packet.partition, packet.offset, packet.reason,
            extra={**_ids(report), **packet._asdict()},
        )  # fmt: skip
    n_more = report.counts.n_rejected - len(report.rejected)
    if report.rejected and n_more > 0:
        LOG.warning(
            "batch %d: and %d more: see the table rejected",
            report.batch_id, n_more, extra=_ids(report),
        )  # fmt: skip


def spent(report: BatchReport) -> dict[str, float]:
    """Return seconds by stage, the longest first; time that belongs to no stage is the `REST`."""
    passed = sum(report.stages_s.get(stage, 0.0) for stage in _PASSED)
    by_stage = {**report.stages_s, REST: max(0.0, report.total_s - passed)}
    return dict(sorted(by_stage.items(), key=lambda item: -item[1]))


def slowest(report: BatchReport) -> str:
    """Return the stage that took the longest.

    While a task waits, its threads work on what it waits for: if they were busy during all of the wait,
    the longest of their stages is returned.
    """
    stages = spent(report)
    name = next(stage for stage in stages if stage not in _THREADS)
    work = [stage for stage in stages if stage in _THREADS]
    if name == "wait" and sum(stages[stage] for stage in work) >= stages["wait"]:
        return work[0]
    return name


def explain(report: BatchReport) -> str:
    """Return a line with the time of a batch by stage, and advice for the slowest one."""
    stages, name = spent(report), slowest(report)
    listed = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in stages.items())
    return (
        f"batch {report.batch_id} took {report.total_s:.1f} s for {report.counts.n_read:,} alerts, "
        f"longest in {name}, {stages[name]:.1f} s: {_HINTS.get(name, 'see docs/metrics.md')} "
        f"(all stages, in s: {listed})"
    )
