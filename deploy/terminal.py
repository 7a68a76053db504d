"""What commands need of the terminal: the console, progress bars, tables, and signals that stop them."""

from __future__ import annotations

import json
import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from store.accounting_queries import Counts
    from stream.audit import PartitionAudit

CONSOLE: Final = Console(stderr=True, width=None if sys.stderr.isatty() else 160)


def stop_event() -> threading.Event:
    """Return an event that SIGTERM and Ctrl-C set."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


@contextmanager
def counting_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar of done and total; yields a function that updates it."""
    columns = (TextColumn("[bold]{task.description}[/]"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=CONSOLE) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def training_bar() -> Iterator[Callable[[str, float], None]]:
    """Show the step and the progress of a training; yields a function that updates them."""
    columns = (TextColumn("[bold]training[/] {task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=CONSOLE) as bar:
        task = bar.add_task("reading", total=1.0)
        yield lambda what, done: bar.update(task, description=what, completed=done)
        bar.update(task, description="done", completed=1.0)


def as_json(result: dict[str, Any]) -> str:
    """Return `result` as JSON; a number that could not be computed is null."""
    return json.dumps(_without_nan(result), indent=2)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and value != value else value  # noqa: PLR0124 - NaN


def audit_table(parts: Iterable[PartitionAudit]) -> Table:
    """Return an audit as a table."""
    table = Table(title="audit: read = classified + not evaluated + duplicate + rejected")
    for name in ("run", "topic", "partition", "offsets", "read", "classified", "not evaluated", "duplicate",
                 "rejected", "lost", "stored", "waiting", "verdict"):  # fmt: skip
        table.add_column(name, justify="left" if name in {"run", "topic", "verdict"} else "right")
    for part in parts:
        numbers = (part.n_read, part.n_classified, part.n_not_evaluated, part.n_duplicate, part.n_rejected,
                   part.n_lost, part.n_stored)  # fmt: skip
        table.add_row(
            part.run_id[:8], part.topic, str(part.partition), f"{part.start_offset}-{part.end_offset}",
            *map(str, numbers), "?" if part.n_waiting is None else str(part.n_waiting),
            f"{len(part.problems)} problems" if part.problems else "closes",
        )  # fmt: skip
    return table


def problem_lines(parts: Iterable[PartitionAudit]) -> Iterator[str]:
    """Yield lines with the problems that an audit found."""
    for part in parts:
        for problem in part.problems:
            yield f"{part.topic}[{part.partition}], run {part.run_id}: {problem}"


def status_lines(held: Counts) -> dict[str, str]:
    """Return counts as texts by name."""
    return {
        "alerts": str(held.alerts),
        "scored": str(held.scored),
        "not evaluated": _by_reason(held.not_evaluated),
        "duplicates": str(held.duplicates),
        "rejected": _by_reason(held.rejected),
        "open label requests": str(held.queue_open),
        "labels": str(held.labels),
    }


def _by_reason(reasons: Mapping[str, int]) -> str:
    listed = ", ".join(f"{reason} {n}" for reason, n in reasons.items())
    return f"{sum(reasons.values())}" + (f" ({listed})" if listed else "")
