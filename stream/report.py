"""What a batch came to and where its time went: the one thing that the job tells whoever watches it.

Times travel from the workers with the rows, so that only the driver keeps metrics, on one machine as
on a hundred, and nothing is shared between processes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stream.commit import BatchCounts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


class Refused(NamedTuple):
    """A packet that was rejected: where it is, and why."""

    topic: str
    partition: int
    offset: int
    reason: str


class Requested(NamedTuple):
    """A request for a spectrum: of which object, for which alert."""

    object_id: int
    dia_source_id: int


class Differing(NamedTuple):
    """An alert that came again and says something else: where it is, and in which columns."""

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
        Which.
    counts
        What came of its messages.
    stages_s
        Seconds by stage, those of :mod:`stream.stages`.
    total_s
        From the start of its tasks to the end of its last sink, by the driver's clock.
    latency_s
        float64, one of each readable alert: commit less Kafka's time stamp, never below 0, as another
        machine's clock would have it.
    model_version
        That scored it; empty where nothing was readable.
    rejected, requested, differing
        The first few of each: packets that were rejected, requests for spectra, repeats with other content.
    committed_ms
        The driver's wall clock when the rows were committed, milliseconds since 1970 UTC.
    early_latency_s
        float64, `latency_s` of the alerts that were found ahead of their turn.
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
