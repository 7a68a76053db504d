from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightcurves.alerts import framed_packets, read_alerts
from lightcurves.arrays import LightCurves, light_curve_column, light_curves_of
from lightcurves.errors import ConfigurationError
from lightcurves.folders import read_light_curves
from lightcurves.imports import import_plasticc
from lightcurves.moments import as_of, detections
from lightcurves.schemas import FolderSchemas, package_schemas
from simulator.container import write_container
from simulator.packets import FRAME, SimulatedAlerts, measurement_id, visit_of
from tests.simulator.skies import LAW, any_curves, sky_table, write_sky

SCHEMA = fastavro.parse_schema(package_schemas().schema(1000) or {})
INT64 = st.integers(-(2**63), 2**63 - 1)


def decoded(packet: bytes) -> dict[str, Any]:
    record: Any = fastavro.schemaless_reader(io.BytesIO(packet[len(FRAME) :]), SCHEMA, None)
    assert isinstance(record, dict)
    return record


def table_of(curves: LightCurves, first_id: int = 1) -> pa.Table:
    """Any light curves as objects, numbered from `first_id`."""
    n = len(curves)
    return pa.table(
        {
            "object_id": np.arange(first_id, first_id + n),
            "ra_deg": np.full(n, 10.0),
            "dec_deg": np.full(n, -30.0),
            "light_curve": light_curve_column(curves),
        }
    )


def assert_packets_show_what_was_visible(objects: pa.Table) -> None:
    """The law: `read_alerts` of the packets is `as_of` of the light curves, bit for bit."""
    alerts = read_alerts(list(SimulatedAlerts(objects)))
    assert alerts["reject_reason"].null_count == len(alerts)
    curves = light_curves_of(objects)
    row, point = detections(curves)
    ids = objects["object_id"].to_numpy()[row]
    order = np.lexsort((ids, curves.t_mjd_tai[point]))
    expected = as_of(curves, row[order], point[order])
    found = light_curves_of(alerts)
    for name in LightCurves.__annotations__:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), name)
    np.testing.assert_array_equal(alerts["object_id"].to_numpy(), ids[order])
    np.testing.assert_array_equal(alerts["t_mjd_tai"].to_numpy(), curves.t_mjd_tai[point][order])
    np.testing.assert_array_equal(alerts["flux_njy"].to_numpy(), curves.flux_njy[point][order])


def test_packets_of_a_sky_show_what_was_visible() -> None:
    assert_packets_show_what_was_visible(sky_table())


@LAW
@given(any_curves(), st.integers(1, 2**62))
def test_packets_of_anything_show_what_was_visible(curves: LightCurves, first_id: int) -> None:
    assert_packets_show_what_was_visible(table_of(curves, first_id))


@pytest.fixture(scope="module")
def plasticc(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    folder = tmp_path_factory.mktemp("plasticc")
    import_plasticc(data_dir / "plasticc", folder)
    return read_light_curves(folder)


def test_packets_of_plasticc_show_what_was_visible(plasticc: pa.Table) -> None:
    some = np.random.default_rng(5).choice(len(plasticc), 150, replace=False)
    assert_packets_show_what_was_visible(plasticc.take(pa.array(some)))


def test_every_alert_of_plasticc_has_an_id_of_its_own(plasticc: pa.Table) -> None:
    alerts = SimulatedAlerts(plasticc)
    row, _ = detections(light_curves_of(plasticc))
    counts = np.bincount(row, minlength=len(plasticc)).tolist()
    names = {
        measurement_id(object_id, number, forced=False)
        for object_id, count in zip(plasticc["object_id"].to_pylist(), counts, strict=True)
        for number in range(count)
    }
    assert len(names) == len(alerts) == 236_880
    assert min(names) > 0


def times_in(value: Any, name: str = "") -> Iterator[float]:
    """Every value of a time field, however deep."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from times_in(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from times_in(inner, name)
    elif "MjdTai" in name and value is not None:
        yield value


@pytest.fixture(scope="module")
def records() -> list[dict[str, Any]]:
    return [decoded(packet) for packet in SimulatedAlerts(sky_table())]


def test_no_time_in_a_packet_is_later_than_the_alert(records: list[dict[str, Any]]) -> None:
    for record in records:
        times = list(times_in(record))
        assert max(times) == record["diaSource"]["midpointMjdTai"]
        previous = record["prvDiaSources"] or []
        assert len(times) >= 2 + 2 * len(previous) + 2 * len(record["prvDiaForcedSources"] or [])


def test_a_packet_shows_all_that_the_packet_before_showed(records: list[dict[str, Any]]) -> None:
    seen: dict[int, set[tuple[int, str]]] = {}
    for record in records:
        points = [record["diaSource"], *(record["prvDiaSources"] or [])]
        points += record["prvDiaForcedSources"] or []
        shown = {(point["visit"], point["band"]) for point in points}
        assert len(shown) == len(points)
        object_id = record["diaSource"]["diaObjectId"]
        assert seen.get(object_id, set()) < shown
        seen[object_id] = shown


def test_an_alert_turns_into_the_previous_source_of_the_next(records: list[dict[str, Any]]) -> None:
    last: dict[int, dict[str, Any]] = {}
    for record in records:
        source = record["diaSource"]
        previous = record["prvDiaSources"]
        object_id = source["diaObjectId"]
        assert (previous[-1] if previous else None) == last.get(object_id)
        assert record["diaObject"]["nDiaSources"] == len(previous or []) + 1
        last[object_id] = source


def test_alerts_are_in_the_order_of_time_and_named_once(records: list[dict[str, Any]]) -> None:
    sources = [record["diaSource"] for record in records]
    times = [source["midpointMjdTai"] for source in sources]
    visits = [source["visit"] for source in sources]
    assert times == sorted(times)
    assert visits == sorted(visits)
    assert len(set(visits)) == len(set(times)) < len(records)  # objects share visits
    assert len({record["diaSourceId"] for record in records}) == len(records)
    assert all(record["diaSourceId"] == record["diaSource"]["diaSourceId"] for record in records)


def test_bytes_are_those_that_fastavro_writes_for_the_record() -> None:
    for packet in SimulatedAlerts(sky_table(n_objects=5)):
        buffer = io.BytesIO()
        fastavro.schemaless_writer(buffer, SCHEMA, decoded(packet))
        assert packet == FRAME + buffer.getvalue()


def test_what_is_filled_and_what_is_null(records: list[dict[str, Any]]) -> None:
    record = next(record for record in records if record["prvDiaForcedSources"])
    filled = {key for key, value in record["diaSource"].items() if value is not None}
    assert filled == {
        *("diaSourceId", "diaObjectId", "visit", "detector", "midpointMjdTai", "ra", "dec"),
        *("x", "y", "timeProcessedMjdTai", "band", "psfFlux", "psfFluxErr", "snr"),
    }
    source = record["diaSource"]
    expected = abs(source["psfFlux"]) / source["psfFluxErr"]
    assert source["snr"] == pytest.approx(expected, rel=1e-6)
    assert record["cutoutDifference"] is record["ssSource"] is record["mpc_orbits"] is None


def test_no_label_reaches_a_packet() -> None:
    objects = sky_table(n_objects=8)
    column = objects.schema.get_field_index("class_id")
    unlabelled = objects.set_column(column, "class_id", pa.nulls(len(objects), pa.int32()))
    assert list(SimulatedAlerts(objects)) == list(SimulatedAlerts(unlabelled))


def test_a_packet_is_the_same_whenever_it_is_asked_for() -> None:
    alerts = SimulatedAlerts(sky_table(n_objects=8))
    forwards = list(alerts)
    fresh = SimulatedAlerts(sky_table(n_objects=8))
    backwards = [fresh.packet(number) for number in reversed(range(len(fresh)))]
    assert forwards == backwards[::-1]
    assert alerts.digest() == fresh.digest() != SimulatedAlerts(sky_table(seed=2)).digest()


def test_a_flux_that_is_none_is_null_and_read_as_no_measurement() -> None:
    curves = light_curves_of(sky_table(n_objects=1))
    broken = curves.flux_njy.copy()
    broken[::3] = np.nan
    curves = replace(curves, flux_njy=broken)
    packets = list(SimulatedAlerts(table_of(curves)))
    fluxes = [decoded(packet)["diaSource"]["psfFlux"] for packet in packets]
    assert any(flux is None for flux in fluxes)
    assert np.isfinite(light_curves_of(read_alerts(packets)).flux_njy).all()


def test_an_object_without_a_position_is_named() -> None:
    objects = sky_table(n_objects=3)
    ra_deg = pa.array([1.0, None, 2.0])
    column = objects.schema.get_field_index("ra_deg")
    with pytest.raises(ConfigurationError, match=r"1 object.*2000000014 among them"):
        SimulatedAlerts(objects.set_column(column, "ra_deg", ra_deg))


def test_a_schema_source_without_the_schema_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"lacks LSST's alert schema 10\.0"):
        SimulatedAlerts(sky_table(n_objects=1), FolderSchemas(tmp_path))


@LAW
@given(st.floats(15_000, 100_000), st.floats(15_000, 100_000))
def test_visits_increase_with_time(first: float, second: float) -> None:
    assert (visit_of(first) <= visit_of(second)) == (first <= second) or abs(first - second) < 1e-11
    assert visit_of(first) < 2**53


@LAW
@given(INT64, st.integers(0, 2**40), st.booleans())
def test_a_measurement_id_is_a_positive_int64(object_id: int, number: int, forced: bool) -> None:  # noqa: FBT001
    name = measurement_id(object_id, number, forced=forced)
    assert 0 <= name < 2**63
    assert name == measurement_id(object_id, number, forced=forced)
    assert name != measurement_id(object_id, number, forced=not forced)


def test_a_container_file_holds_the_same_packets(tmp_path: Path) -> None:
    packets = list(SimulatedAlerts.of_folder(write_sky(tmp_path / "sky")))
    path = tmp_path / "new" / "alerts.avro"
    assert write_container(path, iter(packets)) == len(packets) > 100
    assert list(framed_packets(path)) == packets
    assert read_alerts(path).equals(read_alerts(packets))
    with path.open("rb") as file:
        assert list(fastavro.reader(file)) == [decoded(packet) for packet in packets]


def test_an_empty_container_file_is_one(tmp_path: Path) -> None:
    assert write_container(tmp_path / "none.avro", []) == 0
    assert len(read_alerts(tmp_path / "none.avro")) == 0


def test_a_container_file_takes_no_other_packets(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="not a framed packet of schema 1000: 00000003e9"):
        write_container(tmp_path / "alerts.avro", [b"\0\0\0\3\xe9packet"])
