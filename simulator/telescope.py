"""A simulated spectrograph: it observes the objects of the label queue and reports their true classes."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

import pyarrow.parquet as pq

from lightcurves.errors import ConfigurationError, UnavailableError
from lightcurves.nights import night_of

_LOG: Final = logging.getLogger(__name__)
_TRIES: Final = 4
_FIRST_WAIT_S: Final = 0.2
_LONGEST_WAIT_S: Final = 2.0

REPORTER: Final = "simulated telescope"
INSTRUMENT: Final = "simulated spectrograph"

Request = dict[str, Any]


class LabelDesk(Protocol):
    """The portal as an observer sees it."""

    def open_requests(self) -> list[Request]:
        """Return the unanswered requests in the order in which they should be observed.

        Each has at least ``request_id`` and ``object_id`` (int, or text of one as in JSON) and
        ``t_mjd_tai``, the time of the alert that caused it.

        Raises
        ------
        UnavailableError
            The portal does not answer.
        """
        ...

    def report(
        self,
        object_id: int,
        class_id: int,
        *,
        request_id: int | None = None,
        reporter: str,
        instrument: str | None = None,
        observed_mjd_tai: float | None = None,
    ) -> object:
        """Report the class of an object.

        Raises
        ------
        UnavailableError
            The portal does not answer; whether the report has arrived is then unknown.
        """
        ...


def read_truth(path: Path) -> dict[int, int]:
    """Return object id to classId from ``truth.parquet`` or any ``objects.parquet``.

    Objects without a class are left out.

    Raises
    ------
    ConfigurationError
        There is no such file, or it lacks the two columns.
    """
    try:
        table = pq.read_table(path, columns=["object_id", "class_id"])
        pairs = zip(table["object_id"].to_pylist(), table["class_id"].to_pylist(), strict=True)
    except (OSError, KeyError, ValueError) as error:
        raise ConfigurationError(f"no truth in {path}: {error}") from error
    return {object_id: class_id for object_id, class_id in pairs if class_id is not None}


class Telescope:
    """Takes spectra of requested objects: with a delay, a limited number per night, and each once.

    Parameters
    ----------
    desk
        Where requests come from and reports are sent.
    truth
        Object id to classId. A request for any other object is never answered.
    delay_nights
        A request is observed this many nights after the alert that caused it.
    budget_per_night
        Largest number of spectra per night.
    wait
        Waits for a number of seconds and returns whether to give up, like ``threading.Event.wait``;
        by default it never gives up.

    Notes
    -----
    Nothing needs to be saved, because the portal knows which requests are answered. A spectrum that was
    taken but could not be reported is reported later, without taking another. If it is unknown whether a
    report arrived, it is repeated only if the portal shows the request as still open.
    """

    def __init__(
        self,
        desk: LabelDesk,
        truth: dict[int, int],
        *,
        delay_nights: int,
        budget_per_night: int,
        wait: Callable[[float], bool] | None = None,
    ) -> None:
        self._desk = desk
        self._truth = truth
        self._delay_nights = delay_nights
        self._budget_per_night = budget_per_night
        self._wait = threading.Event().wait if wait is None else wait
        self._spectra: dict[int, int] = {}  # object id to the night of its one spectrum
        self._reported: set[int] = set()

    def observe(self, night: int) -> int:
        """Observe what is due in `night`; return the number of spectra reported.

        May be called any number of times per night: the budget is for the whole night. Steps: get
        the open requests; report those that are due, in the portal's order, within the budget; if the
        portal does not answer, wait, each time a little longer, and try again; after four tries
        leave the rest to a later call.
        """
        before = len(self._reported)
        for attempt in range(_TRIES):
            try:
                self._work_off(night)
                break
            except UnavailableError as error:
                _LOG.warning("night %d: %s", night, error)
                if attempt + 1 == _TRIES or self._wait(_pause_s(attempt)):
                    break
        return len(self._reported) - before

    def _work_off(self, night: int) -> None:
        for request in self._desk.open_requests():
            object_id = int(request["object_id"])
            if object_id not in self._truth or object_id in self._reported:
                continue
            if object_id in self._spectra or self._may_observe(request, night):
                self._report(object_id, int(request["request_id"]), night)

    def _may_observe(self, request: Request, night: int) -> bool:
        taken = sum(when == night for when in self._spectra.values())
        due = night_of(float(request["t_mjd_tai"])) + self._delay_nights
        return due <= night and taken < self._budget_per_night

    def _report(self, object_id: int, request_id: int, night: int) -> None:
        observed = self._spectra.setdefault(object_id, night)
        self._desk.report(
            object_id,
            self._truth[object_id],
            request_id=request_id,
            reporter=REPORTER,
            instrument=INSTRUMENT,
            observed_mjd_tai=float(observed + 1),  # MJD fraction 0 is evening in Chile
        )
        self._reported.add(object_id)


def _pause_s(attempt: int) -> float:
    """Return how long to wait: twice as long each time, up to 2 s, jittered by half."""
    return min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0**attempt) * random.uniform(0.5, 1.0)  # noqa: S311
