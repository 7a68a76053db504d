"""The report on a batch, its results and its time by stage: all that the job passes to its observers.

Workers send their times with the rows, so that only the driver keeps metrics, on one machine as
on a hundred, and nothing is shared between processes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import pyarrow.compute as pc

from stream.commit import BatchCounts
from stream.rows import MESSAGE, RANGE
from stream.stages import WORKER_STAGES
from stream.versions import Versions

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa
    from numpy.typing import NDArray

    from stream.commit import BatchId, Committed
    from stream.stages import Stages

_REFUSED: Final = ("topic", "kafka_partition", "kafka_offset", "reject_reason")
_DIFFERING: Final = (
    *("survey", "dia_source_id", "topic", "kafka_partition", "kafka_offset"),
    "differs",
)
_MOST: Final = 20


class Refused(NamedTuple):
    """A packet that was rejected: where it is, and why."""

    topic: str
    partition: int
    offset: int
    reason: str


class Requested(NamedTuple):
    """A request for a spectrum: of which object, for which alert."""

    survey: str
    object_id: int
    dia_source_id: int


class Differing(NamedTuple):
    """An alert that came again with other content: where it is, and in which columns it differs."""

    survey: str
    dia_source_id: int
    topic: str
    partition: int
    offset: int
    differs: str


@dataclass(frozen=True)
class BatchReport:
    """A batch after its last sink.

    Attributes
    ----------
    run_id, batch_id
        Which batch.
    counts
        The number of its messages by outcome.
    stages_s
        Seconds by stage, those of :mod:`stream.stages`.
    total_s
        From the start of its tasks to the end of its last sink, by the driver's clock.
    latency_s
        float64, one value per readable alert: commit less Kafka's time stamp, and 0 if another
        machine's clock makes this negative.
    model_version
        The versions that scored it, as :mod:`stream.versions` writes them; empty if none did.
    rejected, requested, differing
        The first few of each: packets that were rejected, requests for spectra, repeats with other content.
    committed_ms
        The driver's wall clock when the rows were committed, milliseconds since 1970 UTC.
    early_latency_s
        float64, `latency_s` of the urgent alerts that were found by looking ahead.
    """

    run_id: str
    batch_id: int
    counts: BatchCounts
    stages_s: Mapping[str, float]
    total_s: float
    latency_s: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    model_version: str = ""
    rejected: tuple[Refused, ...] = ()
    committed_ms: int = 0
    early_latency_s: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    requested: tuple[Requested, ...] = ()
    differing: tuple[Differing, ...] = ()


def report_of(
    rows: pa.Table,
    batch: BatchId,
    committed: Committed,
    stages: Stages,
    total_s: float,
    committed_ms: int,
) -> BatchReport:
    """Return the report on a batch; `stages` are the driver's so far, and the workers' are added to them."""
    is_range = pc.equal(rows["kind"], RANGE)
    tasks = rows.filter(is_range)["stages_s"].drop_null().to_pylist()
    for spent in tasks:
        stages.add(dict(zip(WORKER_STAGES, spent, strict=False)))
    longest = max((spent[-1] for spent in tasks), default=0.0)
    stages.seconds["handover"] = max(0.0, stages.seconds["handover"] - longest)
    early_ms = np.array(committed.early_arrival_ms, np.int64)
    messages = rows.filter(pc.equal(rows["kind"], MESSAGE))
    bad = pc.is_valid(messages["reject_reason"])
    readable = messages.filter(pc.invert(bad))
    refused = messages.filter(bad).select([*_REFUSED]).slice(0, _MOST).to_pylist()
    return BatchReport(
        batch.run_id,
        batch.batch_id,
        committed.counts,
        dict(stages.seconds),
        total_s,
        _latency_s(readable["arrival_ms"].to_numpy(), committed_ms),
        str(Versions.of_rows(messages)),
        tuple(Refused(*row.values()) for row in refused),
        committed_ms,
        _latency_s(early_ms, committed_ms),
        tuple(
            Requested(*(row[name] for name in Requested._fields))
            for row in committed.requested[:_MOST]
        ),
        tuple(
            Differing(*(row[name] for name in _DIFFERING)) for row in committed.differing[:_MOST]
        ),
    )


def _latency_s(arrival_ms: NDArray[np.int64], committed_ms: int) -> NDArray[np.float64]:
    return np.maximum(0.0, (committed_ms - arrival_ms) / 1000)
