"""Whether memory, state and checkpoint stay constant: millions of alerts through one stream.

Real packets (262 KB), ``--every`` at a time, maintenance beside the stream. After each: the peak memory of
driver, workers, Spark's JVM, broker and maintenance meanwhile, and their processor time; the
checkpoint, the Delta log, files and bytes of the Delta table, the database; and the stages, so that a slower
stretch can be explained. ``--alerts N``, ``--every N``, ``--rate R``; a plot with ``--plot FILE``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from benchmarks.live import Cpu, Live, cpu_s, live, memory_mb, pss_mb, stages_ms
from benchmarks.setting import finish, print_table
from deploy.places import delta_folder

if TYPE_CHECKING:
    from collections.abc import Callable

LOOK_S: Final = 5.0
"""Memory is looked at so often: a worker's goes up and down by a gigabyte within a minute."""
PROCESSOR: Final = ("stream", "broker", "maintenance")
COLUMNS: Final = {
    "per_s": "alerts a second",
    **{f"{who}_ms": f"{who}, ms an alert" for who in PROCESSOR},
    "driver": "driver, MB",
    "workers": "workers, MB",
    "Spark's JVM": "JVM, MB",
    "broker": "broker, MB",
    "maintenance": "maintenance, MB",
    "checkpoint_files": "checkpoint, files",
    "checkpoint_mb": "checkpoint, MB",
    "delta_log_files": "Delta log, files",
    "delta_files": "Delta, files",
    "delta_mb": "Delta, MB",
    "database_mb": "database, MB",
}


class Watch:
    """What happens from now on, up to a moment.

    Parameters
    ----------
    stage
        With a stream that runs.
    maintenance
        Its process.
    """

    def __init__(self, stage: Live, maintenance: int) -> None:
        self._stage = stage
        self._maintenance = maintenance
        self._began = time.monotonic()
        self._n_reports = len(stage.reports)
        self._cpu_s = self._processor()
        self._machine = machine_s()
        self._most: dict[str, float] = {}
        self._next_s = 0.0

    def look(self) -> None:
        """Measure memory, if the next look is due."""
        if time.monotonic() < self._next_s:
            return
        self._next_s = time.monotonic() + LOOK_S
        seen = memory_mb(self._stage.kafka) | {"maintenance": pss_mb(self._maintenance)}
        self._most = {who: max(mb, self._most.get(who, 0.0)) for who, mb in seen.items()}

    def seen(self) -> dict[str, float]:
        """Return what was seen until now, and everything that could have grown."""
        reports = self._stage.reports[self._n_reports :]
        n = sum(report.counts.n_read for report in reports)
        spent = {who: s - self._cpu_s[who] for who, s in self._processor().items()}
        machine = {what: s - self._machine[what] for what, s in machine_s().items()}
        self._next_s = 0.0
        self.look()
        return {
            "per_s": n / (time.monotonic() - self._began),
            **{f"{who}_ms": 1e3 * s / n for who, s in spent.items()},
            **{f"{what}_share": s / sum(machine.values()) for what, s in machine.items()},
            **self._most,
            **sizes(self._stage),
            **stages_ms(reports),
        }

    def _processor(self) -> dict[str, float]:
        by_role = Cpu.now(self._stage.kafka).seconds
        broker = by_role.pop("broker")
        maintenance = cpu_s(self._maintenance)
        return dict(zip(PROCESSOR, (sum(by_role.values()), broker, maintenance), strict=True))


def machine_s() -> dict[str, float]:
    """Return seconds of all cores since the start: at work, without work, taken by other machines."""
    spent = [float(n) for n in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    idle, stolen = spent[3] + spent[4], spent[7]
    return {"busy": sum(spent) - idle - stolen, "idle": idle, "stolen": stolen}


def sizes(stage: Live) -> dict[str, float]:
    """Look at what lies on the disk."""
    table = delta_folder(stage.settings)
    checkpoint = list(_files(stage.config.checkpoint))
    database = [path for path in stage.settings.state.glob("*.sqlite*") if path.is_file()]
    return {
        "checkpoint_files": len(checkpoint),
        "checkpoint_mb": _mb(checkpoint),
        "delta_log_files": len(list(_files(table / "_delta_log"))),
        "delta_files": len(list(table.glob("*.parquet"))),
        "delta_mb": _mb(list(table.glob("*.parquet"))),
        "database_mb": _mb(database),
    }


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []


def _mb(paths: list[Path]) -> float:
    total = 0
    for path in paths:
        try:
            total += path.stat().st_size
        except FileNotFoundError:  # the stream goes on
            continue
    return total / 1e6


def keep_small(stage: Live) -> subprocess.Popen[bytes]:
    """Start the maintenance beside the stream, in a process of its own."""
    variables = {
        "NOCTULE_STATE": str(stage.settings.state),
        "NOCTULE_MAINTENANCE__LIGHT_CURVE_DAYS": "0",
    }
    command = [sys.executable, "-m", "deploy.cli", "maintain", "--every", "120"]
    return subprocess.Popen(command, env=os.environ | variables, stderr=subprocess.DEVNULL)


def run(
    stage: Live, n: int, every: int, rate: float, report: Callable[[str], None]
) -> list[dict[str, float]]:
    """Stream `n` alerts, at most `rate` per second; return what was measured after each `every` alerts."""
    query, samples = stage.stream(), []
    begin, started = stage.n_read, time.monotonic()
    maintenance = keep_small(stage)
    try:
        for goal in range(every, n + 1, every):
            watch = Watch(stage, maintenance.pid)
            # At most `every` alerts wait for the stream at a time, so Kafka removes nothing unread.
            with stage.sender(every, "--rate", str(rate)):
                stage.await_read(begin + goal, query, watch.look)
            seen = {"alerts": float(goal), "s": time.monotonic() - started, **watch.seen()}
            samples.append(seen)
            report(f"{goal:,} alerts, {goal / seen['s']:.0f} a second: {json.dumps(seen)}")
    finally:
        maintenance.terminate()
        maintenance.wait()
        query.stop()
    return samples


def slope(samples: list[dict[str, float]], name: str) -> float:
    """Return the growth in a million alerts, over the second half of the samples."""
    late = samples[len(samples) // 2 :]
    alerts = np.array([seen["alerts"] for seen in late]) / 1e6
    return float(np.polyfit(alerts, [seen[name] for seen in late], 1)[0]) if len(late) > 1 else 0.0


def plot(samples: list[dict[str, float]], file: Path) -> None:
    """Draw memory over alerts, as an HTML page of Bokeh's."""
    from bokeh.models import DataRange1d  # noqa: PLC0415 - for those who ask
    from bokeh.plotting import figure, output_file, save  # noqa: PLC0415 - for those who ask

    output_file(file, title="memory over alerts", mode="inline")
    drawn = figure(
        x_axis_label="alerts, millions",
        y_axis_label="resident memory, MB",
        y_range=DataRange1d(start=0),
    )
    alerts = [seen["alerts"] / 1e6 for seen in samples]
    colours = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
    for name, colour in zip(("driver", "workers", "Spark's JVM", "broker"), colours, strict=True):
        drawn.line(alerts, [seen[name] for seen in samples], legend_label=name, color=colour)
    save(drawn)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--alerts", type=int, default=1_000_000)
    parser.add_argument("--every", type=int, default=25_000)
    parser.add_argument("--rate", type=float, default=2_000.0)
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    with live(kept=args.every) as stage:
        stage.send(1_000)
        stage.drain()
        samples = run(stage, args.alerts, args.every, args.rate, partial(print, flush=True))
    print()
    shown = samples[:: max(1, len(samples) // 8)]
    rows = []
    for name, text in COLUMNS.items():
        digits = 2 if name.endswith("_ms") else 0
        values = (f"{seen[name]:,.{digits}f}" for seen in shown)
        rows.append((text, *values, f"{slope(samples, name):+,.{digits}f}"))
    print_table(("alerts", *(f"{seen['alerts']:,.0f}" for seen in shown), "a million more"), rows)
    if args.plot is not None:
        plot(samples, args.plot)
    last = samples[-1]
    result: dict[str, Any] = {name: slope(samples, name) for name in COLUMNS}
    finish({"alerts_per_s": last["alerts"] / last["s"], "growth_per_million": result, "last": last})


if __name__ == "__main__":
    main()
