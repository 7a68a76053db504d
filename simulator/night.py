"""Plays nights: alerts are published in the order of their times, with the clock sped up."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from lightcurves.nights import night_of
from simulator.packets import SimulatedAlerts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray


class NightPlan:
    """The alerts of a set of objects, night by night; nights without an alert are left out.

    Parameters
    ----------
    alerts
        Numbered in the order of time; a number here is a position in the stream.

    Attributes
    ----------
    nights
        int64: the nights that have alerts, ascending.
    """

    def __init__(self, alerts: SimulatedAlerts) -> None:
        self._alerts = alerts
        every = night_of(alerts.t_mjd_tai)
        self.nights: NDArray[np.int64]
        self.nights, starts = np.unique(every, return_index=True)
        self._bounds: list[int] = [*starts.tolist(), len(alerts)]

    @classmethod
    def of_folder(cls, folder: Path) -> NightPlan:
        """Return the plan of a light-curve folder's objects."""
        return cls(SimulatedAlerts.of_folder(folder))

    def __len__(self) -> int:
        """Return the number of alerts."""
        return len(self._alerts)

    def __iter__(self) -> Iterator[tuple[int, range]]:
        """Yield every night with the numbers of its alerts."""
        return self.since(0)

    def since(self, position: int) -> Iterator[tuple[int, range]]:
        """Yield what is left after the first `position` alerts, night by night."""
        bounds = zip(self._bounds[:-1], self._bounds[1:], strict=True)
        for night, (start, end) in zip(self.nights.tolist(), bounds, strict=True):
            if position < end:
                yield night, range(max(start, position), end)

    def position_of(self, night: int) -> int:
        """Return how many alerts there are before `night`."""
        return self._bounds[int(np.searchsorted(self.nights, night))]

    def packet(self, number: int) -> bytes:
        """Return the framed packet of an alert."""
        return self._alerts.packet(number)

    def digest(self) -> str:
        """Return a digest of the plan: a position is valid only in the same plan."""
        return self._alerts.digest()


class Clock(Protocol):
    """The time that :func:`play` uses."""

    def now(self) -> float:
        """Return seconds since an arbitrary fixed moment."""
        ...

    def wait(self, seconds: float, stop: threading.Event) -> None:
        """Return after `seconds`, or as soon as `stop` is set."""
        ...


class WallClock:
    """Real time."""

    def now(self) -> float:
        """Return seconds of the monotonic clock."""
        return time.monotonic()

    def wait(self, seconds: float, stop: threading.Event) -> None:
        """Wait on `stop`, so that setting it ends the wait at once."""
        stop.wait(seconds)


def play(
    plan: NightPlan,
    publish: Callable[[bytes], None],
    *,
    night_s: float,
    alerts_per_s: float | None = None,
    position: int = 0,
    start_night: int | None = None,
    clock: Clock | None = None,
    stop: threading.Event | None = None,
    on_night: Callable[[int, int], None] | None = None,
) -> int:
    """Publish the rest of a plan at the pace of simulated nights.

    Parameters
    ----------
    plan
        Nights and their alerts.
    publish
        Takes one packet at a time; the next one is made when it returns.
    night_s
        How long a night lasts, in seconds; its alerts are spread evenly over it. 0 does not wait.
    alerts_per_s
        Alerts per second instead of `night_s`: a night lasts as long as its alerts take.
    position
        How many alerts of the plan were published before, as an earlier call returned it.
    start_night
        Skip the nights before this one.
    clock, stop
        The time, and the event that stops the play at once, even while it waits.
    on_night
        Called with the night and the position when all of a night is published and its time is
        over; not for a night that `stop` cut short. Flush and save the position here.

    Returns
    -------
    int
        The new position: how many of the plan's alerts are published.

    Notes
    -----
    A publisher that is slower than the pace delays what follows; no night is shortened to catch
    up. Nights without an alert take no time.
    """
    clock = WallClock() if clock is None else clock
    stop = threading.Event() if stop is None else stop
    if start_night is not None:
        position = max(position, plan.position_of(start_night))
    begin = clock.now()
    for night, numbers in plan.since(position):
        length = len(numbers) / alerts_per_s if alerts_per_s else night_s
        begin = max(begin, clock.now())
        for count, number in enumerate(numbers):
            _wait_until(begin + length * count / len(numbers), clock, stop)
            if stop.is_set():
                return position
            publish(plan.packet(number))
            position = number + 1
        begin += length
        _wait_until(begin, clock, stop)
        if stop.is_set():
            return position
        if on_night is not None:
            on_night(night, position)
    return position


def _wait_until(due: float, clock: Clock, stop: threading.Event) -> None:
    wait_s = due - clock.now()
    if wait_s > 0:
        clock.wait(wait_s, stop)


@dataclass(frozen=True)
class Bookmark:
    """The position in a plan, saved in a small file between runs.

    Attributes
    ----------
    path
        The file.
    digest
        :meth:`NightPlan.digest`: a position saved for another plan is ignored.
    """

    path: Path
    digest: str

    def read(self) -> int:
        """Return the saved position; 0 if none is saved for this plan."""
        try:
            saved = json.loads(self.path.read_text())
            return int(saved["position"]) if saved["digest"] == self.digest else 0
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return 0

    def write(self, position: int) -> None:
        """Save the position; a crash leaves the old file or the new one."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_suffix(".new")
        fresh.write_text(json.dumps({"digest": self.digest, "position": position}))
        fresh.replace(self.path)
