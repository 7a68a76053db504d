"""What ``noctule demo`` shows in the terminal."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from deploy.terminal import status_lines
from store import registry
from store.accounting_queries import Counts, batch_latency_s, counts
from store.database import reading

if TYPE_CHECKING:
    import sqlalchemy as sa

    from deploy.sections import Settings


@dataclass
class Progress:
    """The progress of the demo; the counters are updated by the threads that count."""

    engine: sa.Engine
    settings: Settings
    url: str
    token: str
    n_sent: int = 0
    n_planned: int | None = None
    n_spectra: int = 0
    night: int | None = None
    seconds: float = 0.0
    held: Counts | None = None
    latency_s: tuple[float, float] | None = None
    champion: str = ""
    trials: list[Any] = field(default_factory=list)
    alerts_per_s: float = 0.0
    _last: tuple[float, int] | None = None

    def refresh(self) -> None:
        """Read the tables again."""
        with reading(self.engine) as connection:
            self.held = counts(connection)
            self.latency_s = batch_latency_s(connection)
            named = registry.champion(connection, self.settings.models.alias)
            self.champion = "" if named is None else str(named["model_version"])
            self.trials = list(registry.trial_history(connection, 3))
        now, seen = time.monotonic(), self.held.alerts
        if self._last is not None and now > self._last[0]:
            rate = (seen - self._last[1]) / (now - self._last[0])
            self.alerts_per_s = 0.8 * self.alerts_per_s + 0.2 * rate
        self._last = (now, seen)


def demo_screen(progress: Progress) -> Panel:
    """Return the live panel."""
    grid = Table.grid(padding=(0, 3))
    grid.add_column(style="dim")
    grid.add_column()
    if progress.night is not None:
        grid.add_row("night", f"MJD {progress.night}")
    grid.add_row(
        "alerts sent",
        f"{progress.n_sent}" + (f" of {progress.n_planned}" if progress.n_planned else ""),
    )
    for name, value in _lines(progress).items():
        grid.add_row(name, value)
    hint = f"to report a label yourself, the token is {progress.token}\n"
    footer = Text(f"{hint}Ctrl-C stops all of it; the next start goes on from here", style="dim")
    title = f"[bold]noctule[/]  {progress.url}"
    return Panel(Group(grid, footer), title=title, border_style="blue", expand=False)


def _lines(progress: Progress) -> dict[str, str]:
    lines: dict[str, str] = {}
    if progress.held is not None:
        lines |= status_lines(progress.held)
        lines["rate"] = f"{progress.alerts_per_s:.0f} alerts/s"
    if progress.latency_s is not None:
        lines["latency, newest batch"] = (
            f"median {progress.latency_s[0]:.1f} s, 99 % {progress.latency_s[1]:.1f} s"
        )
    lines["model"] = progress.champion
    for trial in progress.trials:
        lines[f"trial {trial['trial_id']}"] = trial_line(trial)
    return lines


def trial_line(trial: Any) -> str:
    """Return a line with the outcome of a trial."""
    gate = trial["gate"]
    verdict = "promoted" if trial["promoted"] else "not better"
    return (
        f"{trial['challenger_version']} with {trial['n_labels']} labels: log-loss "
        f"{gate['champion_log_loss']:.3f} -> {gate['challenger_log_loss']:.3f}, {verdict}"
    )


def demo_summary(progress: Progress) -> Table:
    """Return the table for the end of the demo."""
    progress.refresh()
    table = Table(title=f"{progress.n_sent} alerts in {progress.seconds:.0f} s", show_header=False)
    for name, value in _lines(progress).items():
        if name != "rate":
            table.add_row(name, value)
    table.add_row("spectra taken", str(progress.n_spectra))
    return table
