from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightcurves.errors import UnavailableError
from lightcurves.nights import night_of
from simulator.night import Bookmark, NightPlan, play
from simulator.packets import SimulatedAlerts
from tests.simulator.skies import LAW, sky_table


class HandClock:
    """Time that passes in waits alone, and `stops_at` a moment as if someone pressed Ctrl-C."""

    def __init__(self, stops_at: float = float("inf")) -> None:
        self.time = 100.0
        self.stops_at = 100.0 + stops_at

    def now(self) -> float:
        return self.time

    def wait(self, seconds: float, stop: threading.Event) -> None:
        assert seconds > 0
        self.time += seconds
        if self.time >= self.stops_at:
            self.time = self.stops_at
            stop.set()


PLAN = NightPlan(SimulatedAlerts(sky_table(n_objects=12)))
PACKETS = [PLAN.packet(number) for number in range(len(PLAN))]


def test_a_plan_holds_every_alert_once_in_the_order_of_time() -> None:
    numbers = [number for _, numbers in PLAN for number in numbers]
    assert numbers == list(range(len(PLAN)))
    assert len(PLAN) > 100
    nights = [night for night, _ in PLAN]
    assert nights == sorted(set(nights)) == PLAN.nights.tolist()


def test_each_alert_lies_in_its_night() -> None:
    alerts = SimulatedAlerts(sky_table(n_objects=12))
    for night, numbers in PLAN:
        assert {night_of(alerts.t_mjd_tai[number]) for number in numbers} == {night}


def test_a_night_is_named_after_the_mjd_of_its_evening() -> None:
    # 61109.1447 is a real alert of the night that Rubin's visit 2026030900026 calls 2026-03-09.
    assert night_of(61109.1447) == 61108
    assert night_of(61108.9) == 61108
    assert night_of(61108.499) == 61107


def test_nights_of_plasticc_are_not_cut_in_the_middle(data_dir: Path) -> None:
    points = pa.parquet.read_table(
        data_dir / "plasticc" / "plasticc_train_lightcurves.parquet", columns=["mjd"]
    )
    fraction = points["mjd"].to_numpy() % 1
    assert not ((fraction > 0.46) & (fraction < 0.89)).any()


@LAW
@given(st.integers(0, len(PACKETS)))
def test_what_is_left_begins_at_the_position(position: int) -> None:
    left = [number for _, numbers in PLAN.since(position) for number in numbers]
    assert left == list(range(position, len(PLAN)))


def test_the_position_of_a_night_is_what_lies_before_it() -> None:
    before = 0
    for night, numbers in PLAN:
        assert PLAN.position_of(night) == before
        before += len(numbers)
    assert PLAN.position_of(0) == 0
    assert PLAN.position_of(99_999) == len(PLAN)


def test_an_empty_sky_has_no_nights() -> None:
    plan = NightPlan(SimulatedAlerts(sky_table(n_objects=0)))
    assert list(plan) == []
    assert plan.position_of(60_000) == 0
    assert play(plan, lambda _: None, night_s=1.0) == 0


def test_alerts_are_spread_over_their_night() -> None:
    clock, sent, ends = HandClock(), [], []
    position = play(
        PLAN,
        lambda packet: sent.append((clock.now() - 100.0, packet)),
        night_s=4.0,
        clock=clock,
        on_night=lambda night, at: ends.append((night, at)),
    )
    assert position == len(PLAN)
    assert [packet for _, packet in sent] == PACKETS
    for count, (_, numbers) in enumerate(PLAN):
        times = [sent[number][0] for number in numbers]
        expected = 4.0 * count + 4.0 * np.arange(len(numbers)) / len(numbers)
        np.testing.assert_allclose(times, expected, atol=1e-9)
    assert ends == [(night, numbers.stop) for night, numbers in PLAN]
    assert clock.now() - 100.0 == pytest.approx(4.0 * len(ends))


def test_a_rate_decides_how_long_nights_last() -> None:
    clock = HandClock()
    sent: list[float] = []
    play(PLAN, lambda _: sent.append(clock.now()), night_s=4.0, alerts_per_s=50.0, clock=clock)
    np.testing.assert_allclose(np.diff(sent), 0.02)


def test_a_slow_publisher_delays_and_is_not_caught_up() -> None:
    clock, sent = HandClock(), []

    def publish(_: bytes) -> None:
        sent.append(clock.time)
        if len(sent) == 1:
            clock.time += 1_000.0

    play(PLAN, publish, night_s=4.0, clock=clock)
    starts = [sent[numbers.start] for _, numbers in PLAN]
    assert starts[1] >= 1_100.0
    np.testing.assert_allclose(np.diff(starts[1:]), 4.0)


@LAW
@given(st.lists(st.floats(0.01, 400.0), max_size=5))
def test_stopping_and_resuming_publishes_everything_once(stops: list[float]) -> None:
    sent: list[bytes] = []
    position = 0
    for stops_at in [*stops, float("inf")]:
        position = play(
            PLAN, sent.append, night_s=4.0, position=position, clock=HandClock(stops_at)
        )
        assert position == len(sent)
    assert sent == PACKETS


def test_a_play_can_start_at_a_night() -> None:
    sent: list[bytes] = []
    night = int(PLAN.nights[3])
    play(PLAN, sent.append, night_s=0.0, start_night=night)
    assert sent == PACKETS[PLAN.position_of(night) :]
    sent.clear()
    later = PLAN.position_of(night) + 5  # a saved position beyond it wins
    play(PLAN, sent.append, night_s=0.0, position=later, start_night=night)
    assert sent == PACKETS[later:]


def test_a_night_that_was_cut_short_is_not_over() -> None:
    ends: list[int] = []
    play(
        PLAN,
        lambda _: None,
        night_s=4.0,
        clock=HandClock(stops_at=9.0),
        on_night=lambda night, _: ends.append(night),
    )
    assert ends == PLAN.nights[:2].tolist()


def test_a_publisher_that_fails_is_not_silent() -> None:
    def publish(_: bytes) -> None:
        raise UnavailableError("Kafka", "away")

    with pytest.raises(UnavailableError):
        play(PLAN, publish, night_s=0.0)


def test_stop_ends_a_wait_at_once() -> None:
    stop = threading.Event()
    threading.Timer(0.1, stop.set).start()
    begin = time.monotonic()
    assert play(PLAN, lambda _: None, night_s=1e6, stop=stop) == 1
    assert time.monotonic() - begin < 5.0


def test_a_bookmark_is_of_one_plan(tmp_path: Path) -> None:
    bookmark = Bookmark(tmp_path / "new" / "position.json", PLAN.digest())
    assert bookmark.read() == 0
    bookmark.write(7)
    bookmark.write(42)
    assert bookmark.read() == 42
    assert Bookmark(bookmark.path, "another").read() == 0


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '"text"', '{"position": "x", "digest": "d"}', "{}"]
)
def test_a_broken_bookmark_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "position.json"
    path.write_text(text)
    assert Bookmark(path, "d").read() == 0
