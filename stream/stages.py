"""The time of a batch by stage: each stage counts its own seconds."""

from __future__ import annotations

import time
from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

WORKER_STAGES: Final = ("look", "wait", "decode", "features", "score", "rows", "write")
"""Looking ahead for urgent alerts, waiting for messages and their scores, decoding, features, models,
Arrow rows, Parquet.

The stages from ``decode`` to ``rows`` are summed over a worker's threads, and may have been done before the
batch began.
"""
DRIVER_STAGES: Final = ("handover", "sql", "delta", "kafka")
"""Spark's own time (all but the longest task), the SQL transaction, the Delta transaction, sending messages
until all are acknowledged."""


class Stages:
    """Seconds by stage, summed.

    Examples
    --------
    >>> stages = Stages()
    >>> with stages("decode"):
    ...     pass
    >>> list(stages.seconds)
    ['decode']
    """

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Count the time inside for `stage`."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - begin

    def add(self, seconds: Mapping[str, float], part: float = 1.0) -> None:
        """Add `part` of the seconds counted elsewhere."""
        for stage, spent in seconds.items():
            self.seconds[stage] += part * spent
