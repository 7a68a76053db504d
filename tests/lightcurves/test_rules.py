"""The light-curve rules against a slow twin, and the laws that any such rules obey."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lightcurves.columns import DETECTED, KIND_FORCED, NEGATIVE
from lightcurves.decode import decode_columns, light_curves, packets_of, plan_of
from lightcurves.rules import N_REMOVED, REMOVED_NAMES, apply_rules
from lightcurves.schemas import package_schemas
from tests.lightcurves.twin import Point, chosen, points_of

NAN, INF = float("nan"), float("inf")
AFTER_3 = float(np.nextafter(3.0, 4.0))

LAW = settings(max_examples=200, deadline=None)


def points(visits: int = 4) -> st.SearchStrategy[list[Point]]:
    """Measurements that collide in time, visit and band, and many that are none."""
    one = st.builds(
        Point,
        t=st.sampled_from((1.0, 2.0, 3.0, AFTER_3, 3.5, 4.0, NAN, INF, -INF)),
        visit=st.integers(0, visits),
        band=st.integers(-1, 2),
        flux=st.sampled_from((0.0, -5.0, 7.0, 7.0, NAN, INF)),
        sigma=st.sampled_from((1.0, 2.0, 1.0, 0.0, -1.0, NAN, INF)),
        kind=st.integers(0, 2),
        flags=st.sampled_from((0, 0, 1, 2, 64)),
    )
    return st.lists(one, max_size=40)


def alerts() -> st.SearchStrategy[list[tuple[float, list[Point]]]]:
    times = st.sampled_from((0.5, 1.0, 3.0, 3.2, 10.0, NAN, INF))
    return st.lists(st.tuples(times, points()), max_size=4)


def run(
    packets: list[tuple[float, list[Point]]],
) -> tuple[list[list[Point]], list[Counter[str]]]:
    """What the kernel makes of some alerts: (own time, measurements)."""
    flat = [point for _, measured in packets for point in measured]
    lengths = [len(measured) for _, measured in packets]
    dtypes = (np.float64, np.int64, np.int8, np.float32, np.float32, np.int8, np.int8)
    columns: list[Any] = [
        np.array([point[k] for point in flat], dtype) for k, dtype in enumerate(dtypes)
    ]
    rows = np.full(len(flat), -1, np.int64)
    offsets = np.zeros(len(packets) + 1, np.int64)
    removed = np.zeros((len(packets), N_REMOVED), np.int64)
    bounds = np.cumsum([0, *lengths])
    own = np.array([t for t, _ in packets], np.float64)
    kernel: Any = apply_rules
    total = kernel(bounds, *columns, own, rows, offsets, removed)
    assert offsets[-1] == total
    flags = columns[-1].tolist()  # the kernel unites those of a visit and band
    curves = [
        [flat[row]._replace(flags=flags[row]) for row in rows[low:high]]
        for low, high in pairwise(offsets)
    ]
    counts = [Counter(dict(zip(REMOVED_NAMES, row, strict=True))) for row in removed.tolist()]
    return curves, counts


@LAW
@given(alerts())
def test_the_kernel_chooses_what_the_twin_chooses(packets: list[tuple[float, list[Point]]]) -> None:
    curves, counts = run(packets)
    for (own, measured), curve, left_out in zip(packets, curves, counts, strict=True):
        expected, why = chosen(measured, own)
        assert curve == expected
        assert left_out == why


@LAW
@given(alerts())
def test_every_measurement_is_kept_or_counted(packets: list[tuple[float, list[Point]]]) -> None:
    for (_, measured), curve, left_out in zip(packets, *run(packets), strict=True):
        assert len(curve) + left_out.total() == len(measured)


@LAW
@given(points(), st.sampled_from((1.0, 3.0, 3.2)))
def test_a_light_curve_obeys_its_rules(measured: list[Point], own: float) -> None:
    (curve,), _ = run([(own, measured)])
    assert all(point.t <= own for point in curve)
    assert all(np.isfinite(point.flux) and 0 < point.sigma < INF for point in curve)
    assert [point.t for point in curve] == sorted(point.t for point in curve)
    visits = [(point.visit, point.band) for point in curve]
    assert len(set(visits)) == len(visits)
    for point in curve:
        rivals = [p.kind for p in measured if (p.visit, p.band) == (point.visit, point.band)
                  and p.t <= own and np.isfinite(p.flux) and 0 < p.sigma < INF]  # fmt: skip
        assert point.kind == min(rivals)


@LAW
@given(points(), st.sampled_from((1.0, 3.0, INF)))
def test_what_is_later_than_the_alert_changes_nothing(measured: list[Point], own: float) -> None:
    earlier = [point for point in measured if point.t <= own]
    assert run([(own, earlier)])[0] == run([(own, measured)])[0]


@LAW
@given(st.data(), points(visits=40))
def test_the_order_in_the_packet_does_not_matter(
    data: st.DataObject, measured: list[Point]
) -> None:
    """Where no two measurements of one kind share visit and band."""
    distinct = list({(p.visit, p.band, p.kind): p for p in measured}.values())
    shuffled = data.draw(st.permutations(distinct))
    assert run([(4.0, shuffled)])[0] == run([(4.0, distinct)])[0]


@LAW
@given(points())
def test_repeating_the_history_changes_nothing(measured: list[Point]) -> None:
    assert run([(4.0, measured + measured)])[0] == run([(4.0, measured)])[0]


def test_what_the_real_packets_lose_and_why(real_packets: list[bytes], real_records: Any) -> None:
    plan = plan_of(package_schemas().schema(1000))
    bodies = [packet[5:] for packet in real_packets]
    curves, removed = light_curves(decode_columns(plan, packets_of(bodies)))
    lost: Counter[str] = Counter()
    for k, record in enumerate(real_records):
        measured = points_of(record)
        curve, why = chosen(measured, record["diaSource"]["midpointMjdTai"])
        assert dict(zip(REMOVED_NAMES, removed[k].tolist(), strict=True)) == {
            name: why[name] for name in REMOVED_NAMES
        }
        own = slice(*curves.offsets[k : k + 2])
        assert curves.flags[own].tolist() == [point.flags for point in curve]
        assert len(measured) == len(curve) + removed[k].sum()
        lost += why
    # Nearly every earlier source has forced photometry of the same visit, which takes its place.
    assert lost["superseded"] > 10_000
    assert lost["later_than_alert"] == 0
    forced = curves.kind == KIND_FORCED
    assert (curves.flags[forced] & DETECTED).any()
    assert (curves.flags & NEGATIVE).any()
    assert (curves.flags[~forced] & DETECTED).all()


def test_a_long_history_in_the_worst_order_is_sorted() -> None:
    chance = np.random.default_rng(3)
    n = 20_000
    t = chance.permutation(n).astype(float)
    measured = [Point(x, int(x), int(x) % 6, 1.0, 1.0, 1) for x in t.tolist()]
    (curve,), _ = run([(n / 2, measured)])
    assert [point.t for point in curve] == list(range(n // 2 + 1))
