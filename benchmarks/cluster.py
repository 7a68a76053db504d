"""What a cluster costs compared with one machine: executors of one core, on the same cores as all the rest.

A Spark standalone master and ``--executors`` workers, each of one core, on this machine; the alert topic has
two partitions for each. Spark gives a task to any executor, so we count the batches in which all tasks ran
where they had run before: elsewhere consumers are opened again, and prefetched scores are lost. With
``--executors 0`` the same on one machine, in one task.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.end_to_end import drained
from benchmarks.live import live, memory_mb
from benchmarks.setting import finish, print_table
from stream.worker import WorkerConfig
from tests.stream.cluster import Cluster

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.stream.cluster import Task


def stayed(tasks: Iterable[Task], n: int) -> tuple[int, int]:
    """Return how many batches of `n` tasks ran all of them where they had run before, and of how many."""
    executors: dict[int, dict[int, str]] = defaultdict(dict)
    for task in tasks:
        executors[task.stage][task.number] = task.executor
    batches = [executors[stage] for stage in sorted(executors) if len(executors[stage]) == n]
    same = sum(before == now for before, now in pairwise(batches))
    return same, max(0, len(batches) - 1)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--executors", type=int, default=2)
    parser.add_argument("--packets", type=int, default=24_000)
    parser.add_argument("--batch", type=int, default=4_000)
    parser.add_argument("--prefetch", type=int, default=WorkerConfig.prefetch)
    args = parser.parse_args()
    n = args.executors
    stream: dict[str, Any] = {"max_alerts_per_batch": args.batch}
    result: dict[str, Any] = vars(args)
    with ExitStack() as stack:
        if n:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="noctule-bench-")))
            cluster = stack.enter_context(Cluster(folder, workers=n))
            os.environ.update(cluster.environment())
            stream |= {"master": cluster.url, "tasks": n, "threads": 1, "executor_memory": "512m"}
        with live(partitions=2 * max(1, n), stream=stream) as stage:
            worker = replace(stage.config.worker, prefetch=args.prefetch)
            stage.config = replace(stage.config, worker=worker)
            stage.send(1_000)
            stage.drain()  # starts the workers, compiles
            drain = drained(stage, args.packets)
            result["memory_mb"] = memory_mb(stage.kafka)
        if n:
            result["stayed"], result["batches"] = stayed(cluster.tasks(), n)
    result["alerts_per_s"] = drain.per_s
    result["cpu_ms"] = {who: 1e3 * seconds / drain.n for who, seconds in drain.cpu_s.items()}
    rows = [(who, f"{ms:.2f}") for who, ms in result["cpu_ms"].items()]
    print_table(("process", "processor, ms an alert"), rows)
    finish(result)


if __name__ == "__main__":
    main()
