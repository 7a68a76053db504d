"""How soon urgent alerts are rows when many wait, and what that costs the others.

``--alerts`` real packets (262 KB) wait in Kafka when the stream starts, once without a priority and once
with; young and bright are rarer here than by the settings' defaults, since most real packets are bright.
Seconds from the start of the first batch to the committed row, of urgent alerts and of all.
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import sqlalchemy as sa

from benchmarks.live import Live, live
from benchmarks.setting import finish, print_table
from store.keys import of_batch
from store.tables import classifications

if TYPE_CHECKING:
    from numpy.typing import NDArray

YOUNG_DAYS: Final = 20.0
BRIGHT_SIGMA: Final = 150.0
WARM_UP: Final = 15_000
"""Enough alerts that the stream looks ahead, so that this code is compiled before anything is measured."""


class Seen:
    """When each alert was first seen as a row."""

    def __init__(self, stage: Live) -> None:
        self._stage = stage
        self._begin: float | None = None
        self.at_s: dict[int, float] = {}
        self.urgent: set[int] = set()

    def look(self) -> None:
        """Look for the rows of the batch that has just ended."""
        table, report = classifications.c, self._stage.reports[-1]
        bright = sa.func.abs(table.flux_njy) >= BRIGHT_SIGMA * table.sigma_njy
        young = table.days_since_first_detection <= YOUNG_DAYS
        urgent = sa.and_(bright, young, table.reason.is_(None))
        query = sa.select(table.dia_source_id, urgent).where(
            of_batch(classifications, report.run_id, report.batch_id)
        )
        if self._begin is None:
            self._begin = time.monotonic() - report.total_s
        now = time.monotonic() - self._begin
        with self._stage.engine.connect() as connection:
            for dia_source_id, is_urgent in connection.execute(query):
                self.at_s.setdefault(dia_source_id, now)
                if is_urgent:
                    self.urgent.add(dia_source_id)


def measure(n: int, priority: str) -> dict[str, Any]:
    """Let `n` alerts wait, and read them."""
    stream = {"priority": priority, "young_days": YOUNG_DAYS, "bright_sigma": BRIGHT_SIGMA}
    with live(kept=n, stream=stream) as stage:
        stage.send(WARM_UP)
        stage.drain()
        stage.send(n)
        seen = Seen(stage)
        stage.on_batch = seen.look
        goal = stage.n_read + n
        stage.drain()
        assert stage.n_read == goal
    urgent = np.array([seen.at_s[key] for key in seen.urgent])
    everything = np.array(list(seen.at_s.values()))
    return {"urgent": three(urgent), "all": three(everything), "share": urgent.size / n}


def three(seconds: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return median, 99th percentile and maximum."""
    p50, p99, last = np.quantile(seconds, (0.5, 0.99, 1.0)).tolist()
    return p50, p99, last


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--alerts", type=int, default=100_000)
    args = parser.parse_args()
    results = {name: measure(args.alerts, name) for name in ("none", "young_and_bright")}
    rows = []
    for name, times in results.items():
        texts = [f"{seconds:.1f}" for who in ("urgent", "all") for seconds in times[who]]
        rows.append((name, *texts))
    head = ("urgent: median", "99 %", "last", "all: median", "99 %", "last")
    print_table(("seconds to the row, `stream.priority`", *head), rows)
    plain, urgent_first = results.values()
    print(f"{urgent_first['share']:.1%} of {args.alerts:,} alerts are urgent: their median is "
          f"{plain['urgent'][0] / urgent_first['urgent'][0]:.1f} times as early, and all is done after "
          f"{urgent_first['all'][2] / plain['all'][2]:.2f} times as long\n")  # fmt: skip
    finish({"alerts": args.alerts, **results})


if __name__ == "__main__":
    main()
