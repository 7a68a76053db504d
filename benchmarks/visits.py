"""How soon alerts are rows: at a steady pace, as the telescope sends them, and after a stop.

Rubin takes a visit every 39 s, whose alerts come out together: 10,000 in 5 s, 256 a second in the mean.
Three parts, each at ``--scale`` times that, real packets (262 KB) and all sinks on one machine:

- steady: 256 a second;
- visits: latency of every alert, and of each visit the time from its first alert in Kafka to its last row;
- stop: what came in during ``--stop`` seconds without a stream is read while visits go on, until nothing
  waits (it is sent at once, so the benchmark does not take as long as the stop).
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from benchmarks.live import Live, latencies_s, live
from benchmarks.setting import finish, print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stream.report import BatchReport

VISIT: Final = 10_000
WITHIN_S: Final = 5.0
EVERY_S: Final = 39.0
PER_S: Final = VISIT / EVERY_S


def quantiles(waited: NDArray[np.float64]) -> dict[str, float]:
    """Return median, 99th percentile and worst of latencies."""
    p50, p99, worst = np.quantile(waited, (0.5, 0.99, 1.0)).tolist()
    return {"p50_s": p50, "p99_s": p99, "worst_s": worst}


def visits_of(reports: Sequence[BatchReport]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return of each visit the seconds from its first alert in Kafka to its last, and to its last row."""
    commits = np.concatenate(
        [np.full(report.latency_s.size, report.committed_ms / 1000) for report in reports]
    )
    arrivals = commits - latencies_s(reports)
    order = np.argsort(arrivals)
    cuts = np.flatnonzero(np.diff(arrivals[order]) > (EVERY_S - WITHIN_S) / 2) + 1
    visits = [part for part in np.split(order, cuts) if part.size]
    first = np.array([arrivals[part].min() for part in visits])
    last = np.array([arrivals[part].max() for part in visits])
    return last - first, np.array([commits[part].max() for part in visits]) - first


def steady(stage: Live, rate: float, seconds: float) -> dict[str, float]:
    """Send at a steady pace."""
    query = stage.stream()
    before = len(stage.reports)
    n = int(rate * seconds)
    with stage.sender(n, "--rate", str(rate)):
        stage.await_read(stage.n_read + n, query)
    query.stop()
    return quantiles(latencies_s(stage.reports[before:]))


def in_visits(stage: Live, visit: int, count: int) -> dict[str, float]:
    """Send visits."""
    query = stage.stream()
    before = len(stage.reports)
    n = visit * count
    with stage.sender(n, "--visit", str(visit), "--within", str(WITHIN_S), "--every", str(EVERY_S)):
        stage.await_read(stage.n_read + n, query)
    query.stop()
    reports = stage.reports[before:]
    sent, whole = visits_of(reports)
    assert whole.size == count, "visits ran into each other: this machine is too slow for the scale"
    return quantiles(latencies_s(reports)) | {
        "sent_mean_s": float(sent.mean()),
        "visit_mean_s": float(whole.mean()),
        "visit_worst_s": float(whole.max()),
    }


def after_a_stop(stage: Live, visit: int, stop_s: float) -> dict[str, float]:
    """Let what came in during a stop wait, and read it while visits go on."""
    backlog = int(stop_s * visit / EVERY_S)
    stage.send(backlog)
    goal = stage.n_read + backlog
    begin = time.monotonic()
    query = stage.stream()
    count = 1000  # more than will be needed: the sender is ended
    sender = stage.sender(visit * count, "--visit", str(visit))
    try:
        stage.await_read(goal, query)
        seconds = time.monotonic() - begin
        # Nothing waits any more once all is read that was sent until now, visits and all.
        while stage.n_read < backlog_with(goal, visit, time.monotonic() - begin):
            time.sleep(0.1)
            seconds = time.monotonic() - begin
    finally:
        sender.terminate()
        sender.wait()
        query.stop()
    return {"backlog": backlog, "caught_up_s": seconds}


def backlog_with(goal: int, visit: int, elapsed_s: float) -> int:
    """Return how many alerts are in Kafka by then, of visits those that are complete."""
    return goal + visit * int(max(0.0, elapsed_s - WITHIN_S) // EVERY_S)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--seconds", type=float, default=60.0, help="of the steady part")
    parser.add_argument("--visits", type=int, default=6)
    parser.add_argument("--stop", type=float, default=600.0, help="seconds; 0: none")
    args = parser.parse_args()
    visit = round(VISIT * args.scale)
    kept = round(visit * max(args.stop / EVERY_S + 10, args.visits))
    result: dict[str, Any] = {"scale": args.scale, "visit": visit}
    with live(kept=kept) as stage:
        stage.send(1_000)
        stage.drain()
        result["steady"] = steady(stage, PER_S * args.scale, args.seconds)
        result["visits"] = in_visits(stage, visit, args.visits)
        if args.stop:
            result["stop"] = after_a_stop(stage, visit, args.stop)

    def cells(part: dict[str, float]) -> list[str]:
        return [f"{part[name]:.2f}" for name in ("p50_s", "p99_s", "worst_s")]

    print_table(
        ("Kafka's time stamp to committed row, s", "median", "99 %", "worst"),
        [
            (f"steady, {PER_S * args.scale:.0f} a second", *cells(result["steady"])),
            (f"visits of {visit:,} in 5 s every 39 s", *cells(result["visits"])),
        ],
    )
    whole = result["visits"]
    print(f"a visit's first alert in Kafka to its last row: {whole['visit_mean_s']:.1f} s in the "
          f"mean, {whole['visit_worst_s']:.1f} s at worst; to its last alert in Kafka, which the same "
          f"cores send: {whole['sent_mean_s']:.1f} s")  # fmt: skip
    if args.stop:
        stop = result["stop"]
        print(f"after a stop of {args.stop:.0f} s: {stop['backlog']:,} alerts and the visits meanwhile "
              f"in {stop['caught_up_s']:.0f} s\n")  # fmt: skip
    finish(result)


if __name__ == "__main__":
    main()
