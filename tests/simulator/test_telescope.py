from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightcurves.errors import ConfigurationError, UnavailableError
from simulator.telescope import Telescope, read_truth
from tests.simulator.skies import LAW

TRUTH = {number: 111 + number % 3 for number in range(1, 41)}


class Desk:
    """A portal that can be away, and can lose an answer after it has taken a report in."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.reports: list[dict[str, Any]] = []
        self.failures: list[str] = []
        self.refuses = False

    def ask(self, object_id: int, night: int) -> None:
        self.requests.append(
            {
                "request_id": 1000 + object_id,
                "object_id": str(object_id),  # as JSON has it
                "t_mjd_tai": night + 1.1,
            }
        )

    def open_requests(self) -> list[dict[str, Any]]:
        self._fail("before")
        answered = {report["object_id"] for report in self.reports}
        return [each for each in self.requests if int(each["object_id"]) not in answered]

    def report(self, object_id: int, class_id: int, **details: Any) -> None:
        self._fail("report")
        if self.refuses:
            raise ConfigurationError("no token")
        self.reports.append({"object_id": object_id, "class_id": class_id, **details})
        self._fail("after")

    def _fail(self, when: str) -> None:
        if self.failures and self.failures[0] == when:
            self.failures.pop(0)
            raise UnavailableError("portal", when)


def telescope(
    desk: Desk, *, delay: int = 2, budget: int = 3, wait: Callable[[float], bool] | None = None
) -> Telescope:
    return Telescope(
        desk,
        TRUTH,
        delay_nights=delay,
        budget_per_night=budget,
        wait=wait or (lambda _: False),
    )


def test_a_request_is_answered_after_the_delay() -> None:
    desk = Desk()
    desk.ask(5, night=100)
    spectrograph = telescope(desk, delay=2)
    assert [spectrograph.observe(night) for night in (100, 101, 102, 103)] == [0, 0, 1, 0]
    assert desk.reports == [
        {
            "object_id": 5,
            "class_id": TRUTH[5],
            "request_id": 1005,
            "reporter": "simulated telescope",
            "instrument": "simulated spectrograph",
            "observed_mjd_tai": 103.0,
        }
    ]


def test_the_budget_holds_for_a_night_and_the_order_is_the_portals() -> None:
    desk = Desk()
    for object_id in (9, 3, 7, 1):
        desk.ask(object_id, night=100)
    spectrograph = telescope(desk, budget=3)
    assert [spectrograph.observe(night) for night in (102, 102, 103)] == [3, 0, 1]
    assert [report["object_id"] for report in desk.reports] == [9, 3, 7, 1]


def test_no_budget_answers_nothing() -> None:
    desk = Desk()
    desk.ask(5, night=100)
    assert telescope(desk, budget=0).observe(110) == 0


def test_an_unknown_object_is_never_answered_and_blocks_nothing() -> None:
    desk = Desk()
    desk.ask(999, night=100)
    desk.ask(5, night=100)
    assert telescope(desk, budget=1).observe(102) == 1
    assert desk.reports[0]["object_id"] == 5


def test_a_portal_that_comes_back_is_served() -> None:
    desk = Desk()
    desk.ask(5, night=100)
    desk.failures = ["before", "before", "report"]
    pauses: list[float] = []

    def wait(seconds: float) -> bool:
        pauses.append(seconds)
        return False

    spectrograph = telescope(desk, wait=wait)
    assert spectrograph.observe(102) == 1
    assert len(pauses) == 3
    assert all(0.1 <= pause <= 2.0 for pause in pauses)


def test_a_portal_that_stays_away_costs_four_tries_and_is_asked_another_night() -> None:
    desk = Desk()
    desk.ask(5, night=100)
    desk.failures = ["before"] * 4
    spectrograph = telescope(desk)
    assert spectrograph.observe(102) == 0
    assert desk.failures == []
    assert spectrograph.observe(103) == 1


def test_stop_ends_the_tries() -> None:
    desk = Desk()
    desk.failures = ["before"] * 4
    assert telescope(desk, wait=lambda _: True).observe(102) == 0
    assert len(desk.failures) == 3


def test_a_spectrum_that_could_not_be_reported_is_not_taken_again() -> None:
    desk = Desk()
    for object_id in (1, 2):
        desk.ask(object_id, night=100)
    desk.failures = ["report"] * 4
    spectrograph = telescope(desk, budget=1)
    assert [spectrograph.observe(night) for night in (102, 103)] == [0, 2]
    observed = {report["object_id"]: report["observed_mjd_tai"] for report in desk.reports}
    assert observed == {1: 103.0, 2: 104.0}


def test_another_error_is_not_swallowed() -> None:
    desk = Desk()
    desk.ask(5, night=100)
    desk.refuses = True
    with pytest.raises(ConfigurationError, match="no token"):
        telescope(desk).observe(102)


@LAW
@given(
    st.lists(st.tuples(st.sampled_from(sorted(TRUTH)), st.integers(100, 110)), max_size=30),
    st.lists(st.sampled_from(["before", "report", "after"]), max_size=30),
    st.integers(0, 4),
    st.integers(1, 4),
)
def test_whatever_fails_no_object_is_answered_twice_early_or_beyond_the_budget(
    asked: list[tuple[int, int]], failures: list[str], delay: int, budget: int
) -> None:
    desk = Desk()
    first: dict[int, int] = {}
    for object_id, night in asked:
        if object_id not in first:  # the portal asks for an object once
            first[object_id] = night
            desk.ask(object_id, night)
    desk.failures = list(failures)
    spectrograph = telescope(desk, delay=delay, budget=budget)
    for night in range(100, 160):
        before = len(desk.reports)
        spectrograph.observe(night)
        for report in desk.reports[before:]:
            assert first[report["object_id"]] + delay <= night
    observed = [report["observed_mjd_tai"] for report in desk.reports]
    assert max((observed.count(night) for night in observed), default=0) <= budget
    assert sorted(report["object_id"] for report in desk.reports) == sorted(first)
    assert all(TRUTH[report["object_id"]] == report["class_id"] for report in desk.reports)


def test_truth_is_what_the_file_knows(tmp_path: Path) -> None:
    table = pa.table({"object_id": [1, 2], "class_id": [111, None], "ra_deg": [0.0, 1.0]})
    pq.write_table(table, tmp_path / "objects.parquet")
    assert read_truth(tmp_path / "objects.parquet") == {1: 111}


def test_a_file_without_truth_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no truth in .*absent\.parquet"):
        read_truth(tmp_path / "absent.parquet")
    pq.write_table(pa.table({"object_id": [1]}), tmp_path / "objects.parquet")
    with pytest.raises(ConfigurationError, match=r"no truth in .*objects\.parquet"):
        read_truth(tmp_path / "objects.parquet")
