"""A survey is one declaration: recognised by its fields, with bands, features and nights of its own."""

from __future__ import annotations

import copy
import io
import math
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import astropy.units as u  # type: ignore[import-untyped]
import fastavro
import numpy as np
import pyarrow as pa
import pytest
from astropy.coordinates import AltAz, EarthLocation, get_sun  # type: ignore[import-untyped]
from astropy.time import Time  # type: ignore[import-untyped]
from astropy.utils import iers  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st

from lightcurves.alerts import framed_packets, read_alerts
from lightcurves.arrays import light_curve_column, light_curves_of
from lightcurves.bands import BAND_CODES, BAND_NAMES, BANDS, feature_bands, wavelengths_nm
from lightcurves.columns import KIND_SOURCE
from lightcurves.decode import Decoder, packets_of, plan_of
from lightcurves.errors import ConfigurationError
from lightcurves.features.gp import fit_gp, predict_gp
from lightcurves.features.period import find_periods
from lightcurves.features.registry import ALL_FAMILIES
from lightcurves.features.table import compute_features, feature_arrays
from lightcurves.nights import night_of
from lightcurves.recognise import survey_of
from lightcurves.schemas import package_schemas
from lightcurves.surveys import LSST, SURVEYS, WINTER, ZTF, register
from lightcurves.surveys.declare import Band, Framing, History, Site, Survey
from tests.lightcurves.avro import encode
from tests.lightcurves.test_ztf import SCHEMA as ZTF_SCHEMA
from tests.lightcurves.test_ztf import plausible

WINTER_POINT = {"candid": "long", "jd": "double", "fid": "int", "isdiffpos": "boolean", "ra": "double",
                "dec": "double", "magpsf": "float", "sigmapsf": "float"}  # fmt: skip


def record(name: str, kinds: dict[str, Any], **more: Any) -> dict[str, Any]:
    fields = [{"name": field, "type": kind} for field, kind in {**kinds, **more}.items()]
    return {"type": "record", "name": name, "fields": fields}


WINTER_SCHEMA = record(
    "winter.alert",
    {
        "schemavsn": "string",
        "objectid": "string",
        "candid": "long",
        "candidate": record(
            "winter.alert.candidate", WINTER_POINT, boardid="int", fwhm=["float", "null"]
        ),
        "prv_candidates": [
            {"type": "array", "items": record("winter.alert.prv_candidate", WINTER_POINT)},
            "null",
        ],
        "cutout_science": "bytes",
        "cutout_template": "bytes",
        "cutout_difference": "bytes",
    },
)
"""In the shape of WINTER's 0.4, with few of its fields."""

HALE: Survey = Survey(
    name="hale",
    alert={
        "dia_source_id": "id",
        "object_id": "object",
        "t_mjd_tai": "mjd",
        "band": "filter",
        "flux_njy": "flux",
        "sigma_njy": "error",
    },
    histories=(
        History(
            "before",
            KIND_SOURCE,
            {"t_mjd_tai": "mjd", "visit": "visit", "band": "filter", "flux_njy": "flux",
             "sigma_njy": "error"},
        ),
    ),
    required=("id", "mjd", "flux", "filter"),
    bands=(Band("cyan", 530.0, "g", "c"), Band("orange", 680.0, "r", "o")),
    site=Site("Mauna Loa", -155.576, 19.536, 3397.0, night_turns=11 / 12),
    framing=Framing.CONTAINER,
    schema_names="hale",
)  # fmt: skip
"""Invented, and known to nobody before a test registers it."""

POINT = {"mjd": "double", "filter": "string", "flux": "float", "error": "float"}
HALE_SCHEMA = record(
    "anything",
    {"id": "long", "object": "long", **POINT},
    before={"type": "array", "items": record("point", POINT)},
)


@contextmanager
def registered(*surveys: Survey) -> Iterator[None]:
    """Register surveys and forget them again, bands and all, which no program does."""
    tables: tuple[Any, ...] = (SURVEYS, BANDS, BAND_NAMES, BAND_CODES)
    kept = [copy.copy(table) for table in tables]
    try:
        for survey in surveys:
            register(survey)
        yield
    finally:
        for table, before in zip(tables, kept, strict=True):
            table.clear()
            table.extend(before) if isinstance(table, list) else table.update(before)


def renamed(schema: Any, name: str = "topLevelRecord", known: dict[str, Any] | None = None) -> Any:
    """A schema as Spark writes it again: other names, each type written out, nulls everywhere."""
    known = {} if known is None else known
    if isinstance(schema, list):
        return [renamed(branch, name, known) for branch in schema]
    if isinstance(schema, str):
        return renamed(known[schema], name, known) if schema in known else schema
    if schema["type"] == "record":
        known[schema["name"]] = schema
        fields = []
        for field in schema["fields"]:
            inner = renamed(field["type"], f"{name}.{field['name']}", known)
            optional = inner if isinstance(inner, list) else [inner, "null"]
            fields.append({"name": field["name"], "type": optional})
        return {"type": "record", "name": name, "fields": fields}
    if schema["type"] == "array":
        return {"type": "array", "items": renamed(schema["items"], name, known)}
    return schema


def without(schema: Any, *path: str) -> Any:
    """The schema without the field at `path`."""
    fields = []
    for field in schema["fields"]:
        if field["name"] != path[0]:
            fields.append(field)
        elif len(path) > 1:
            fields.append({**field, "type": without(field["type"], *path[1:])})
    return {**schema, "fields": fields}


class Schemas:
    """One schema each under the ids 1, 2, ..."""

    def __init__(self, *schemas: Any) -> None:
        self._schemas = schemas

    def schema(self, schema_id: int) -> Any:
        return self._schemas[schema_id - 1] if 0 < schema_id <= len(self._schemas) else None


def framed(schema: Any, value: Any, schema_id: int = 1) -> bytes:
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, schema, value)
    return b"\0" + schema_id.to_bytes(4, "big") + buffer.getvalue()


def contained(schema: Any, *values: Any) -> bytes:
    buffer = io.BytesIO()
    fastavro.writer(buffer, schema, values)
    return buffer.getvalue()


# -- whose is a packet? -----------------------------------------------------------------------------


def lsst_schemas() -> Iterator[Any]:
    for schema_id in (500, 704, 1000, 1101):
        yield package_schemas().schema(schema_id)


@pytest.mark.parametrize(
    ("schema", "survey"),
    [*((s, LSST) for s in lsst_schemas()), (ZTF_SCHEMA, ZTF), (WINTER_SCHEMA, WINTER)],
)
@pytest.mark.parametrize("name", ["topLevelRecord", "ztf.alert", "lsst.v10_0.alert", "x"])
def test_fields_decide_whatever_the_name(schema: Any, survey: Survey, name: str) -> None:
    assert survey_of(schema) is survey
    assert survey_of({**schema, "name": name}) is survey
    again = fastavro.parse_schema(renamed(schema, name), _write_hint=False)
    assert survey_of(again) is survey
    assert set(plan_of(again).stored) == set(plan_of(schema).stored)
    assert re.fullmatch(survey.schema_names, schema["name"])


def test_real_schemas_are_of_their_survey(data_dir: Path) -> None:
    for folder in ("lsst", "ztf"):
        files = sorted((data_dir / folder).rglob("*.avro"))
        assert files
        for file in files:
            with file.open("rb") as opened:
                schema = fastavro.reader(opened).writer_schema
            assert survey_of(schema).name == folder


@pytest.mark.parametrize("survey", SURVEYS.values())
def test_a_schema_that_lacks_one_field_names_it(survey: Survey) -> None:
    schemas: dict[str, Any] = {
        "lsst": package_schemas().schema(1000),
        "ztf": ZTF_SCHEMA,
        "winter": WINTER_SCHEMA,
    }
    for path in survey.required:
        schema = without(fastavro.parse_schema(schemas[survey.name]), *path.split("."))
        nearest = f"no survey's alert: nearest is {survey.name}, which needs {re.escape(path)}$"
        with pytest.raises(ConfigurationError, match=nearest):
            survey_of(schema)
        with pytest.raises(ConfigurationError, match=nearest):
            read_alerts(
                contained({**schema, "name": "lsst.v10_0.alert", "fields": schema["fields"]})
            )
        packet = b"\0\0\0\0\1"
        reasons = Decoder(Schemas(schema)).decode(packets_of([packet]))["reject_reason"]
        assert reasons.to_pylist() == ["unusable_schema"]


def test_a_schema_of_nobody_complains_about_nobodys_fields() -> None:
    with pytest.raises(ConfigurationError, match="no field that lsst, ztf, winter need"):
        survey_of(record("alert", {"x": "int"}))
    garbage: Any
    for garbage in ("string", {"name": "lsst.v10_0.alert"}, [], {"type": "record"}):
        with pytest.raises(ConfigurationError, match=r"must be a record|no Avro schema"):
            survey_of(garbage)


def test_the_more_specific_survey_wins_and_a_tie_is_an_error() -> None:
    few = replace(HALE, name="few", required=("id", "mjd"), bands=())
    other = replace(HALE, name="other", required=("id", "object", "flux", "error"), bands=())
    with registered(few):
        assert survey_of(HALE_SCHEMA) is few
        with registered(HALE):
            assert survey_of(HALE_SCHEMA) is HALE
            with (
                registered(other),
                pytest.raises(ConfigurationError, match="fields of hale and other"),
            ):
                survey_of(HALE_SCHEMA)
    with pytest.raises(ConfigurationError, match="no survey's alert"):
        survey_of(HALE_SCHEMA)


# -- what a declaration may not say -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"name": "ztf"}, "a survey called ztf already"),
        ({"required": tuple(reversed(LSST.required))}, "the same fields as lsst"),
        ({"required": ()}, "requires no field"),
        ({"bands": (HALE.bands[0], replace(HALE.bands[1], name="ztf_g"))}, "band ztf_g is taken"),
        ({"bands": (HALE.bands[0], HALE.bands[0])}, "band cyan is taken"),
        ({"bands": tuple(Band(f"b{k}", 500.0, "g") for k in range(128))}, "more than 128 bands"),
    ],
)
def test_what_could_not_be_told_apart_is_refused(changed: dict[str, Any], said: str) -> None:
    before = (dict(SURVEYS), list(BANDS), list(BAND_NAMES), dict(BAND_CODES))
    with pytest.raises(ConfigurationError, match=said):
        register(replace(HALE, **changed))
    assert (dict(SURVEYS), list(BANDS), list(BAND_NAMES), dict(BAND_CODES)) == before


def test_a_band_counts_as_one_that_features_know() -> None:
    with pytest.raises(ConfigurationError, match="band w counts as w"):
        Band("w", 600.0, "w")
    with pytest.raises(ConfigurationError, match="1 to 8 bytes"):
        Band("w", 600.0, "r", "123456789")
    with pytest.raises(ConfigurationError, match="hale is not registered: no band cyan"):
        plan_of(HALE_SCHEMA, HALE)


def test_codes_are_what_they_were() -> None:
    """Surveys are added behind: models, kernels and tables that hold codes stay right."""
    assert BAND_NAMES[:9] == ["u", "g", "r", "i", "z", "y", "ztf_g", "ztf_r", "ztf_i"]
    assert [BAND_CODES[name] for name in BAND_NAMES] == list(range(len(BAND_NAMES)))
    assert feature_bands()[:9].tolist() == [0, 1, 2, 3, 4, 5, 1, 2, 3]
    assert [band.name for band in BANDS] == BAND_NAMES
    assert list(SURVEYS) == ["lsst", "ztf", "winter"]
    for survey in SURVEYS.values():
        known = [band.wavelength_nm for band in survey.bands]
        places = [feature_bands()[BAND_CODES[band.name]] for band in survey.bands]
        assert known == sorted(known)
        assert places == sorted(set(places))


# -- the third survey -------------------------------------------------------------------------------

winter_points = st.fixed_dictionaries(
    {
        "candid": st.integers(1, 2**62),
        "jd": st.floats(2_460_000.5, 2_460_060.5),
        "fid": st.integers(1, 4),
        "isdiffpos": st.booleans(),
        "ra": st.floats(0, 360),
        "dec": st.floats(-30, 90),
        "magpsf": st.floats(12, 21, width=32),
        "sigmapsf": st.floats(0.0078125, 0.25, width=32),
    }
)
names = st.text(st.sampled_from("abcdefghijklmnopqrstuvwxyz"), min_size=5, max_size=5)
winter_packets = st.builds(
    lambda own, before, name: {
        "schemavsn": "0.4",
        "objectid": f"WNTR24{name}",
        "candid": own["candid"],
        "candidate": {**own, "boardid": 2, "fwhm": None},
        "prv_candidates": before,
        "cutout_science": b"science",
        "cutout_template": b"template",
        "cutout_difference": b"difference",
    },
    winter_points,
    st.none() | st.lists(winter_points, max_size=12, unique_by=lambda point: point["jd"]),
    names,
)


def winter_point(point: dict[str, Any]) -> dict[str, Any]:
    """In noctule's units, by the book."""
    flux = 3631e9 * 10 ** (-point["magpsf"] / 2.5)
    return {
        "t_mjd_tai": Time(point["jd"] - 2_400_000.5, format="mjd", scale="utc").tai.mjd,
        "band": {1: "winter_y", 2: "winter_j", 3: "winter_hs"}.get(point["fid"]),
        "flux_njy": flux if point["isdiffpos"] else -flux,
        "sigma_njy": flux * point["sigmapsf"] * math.log(10) / 2.5,
    }


def close(got: dict[str, Any], expected: dict[str, Any]) -> None:
    assert got["band"] == expected["band"]
    assert got["t_mjd_tai"] == pytest.approx(expected["t_mjd_tai"], abs=1e-8)
    for name in ("flux_njy", "sigma_njy"):  # 3631 Jy and 31.4 differ by 3e-5
        assert got[name] == pytest.approx(expected[name], rel=1e-4)


@given(winter_packets)
@settings(max_examples=100, deadline=None)
def test_winters_packets_become_columns(packet: dict[str, Any]) -> None:
    own = packet["candidate"]
    by_frame = Decoder(Schemas(WINTER_SCHEMA)).decode(packets_of([framed(WINTER_SCHEMA, packet)]))
    (row,) = by_frame.to_pylist()
    (whole,) = read_alerts(contained(WINTER_SCHEMA, packet), cutouts=True).to_pylist()
    assert {name: whole[name] for name in row if name != "schema_id"} == {
        name: value for name, value in row.items() if name != "schema_id"
    }
    assert (row["survey"], row["reject_reason"]) == ("winter", None)
    assert row["dia_source_id"] == packet["candid"]
    assert np.base_repr(row["object_id"], 36).lower() == packet["objectid"].lower()
    assert (row["ra_deg"], row["dec_deg"]) == (own["ra"], own["dec"])
    close(row, winter_point(own))
    assert [whole[f"cutout_{kind}"] for kind in ("science", "template", "difference")] == [
        b"science", b"template", b"difference"
    ]  # fmt: skip
    earlier = [p for p in packet["prv_candidates"] or () if p["jd"] < own["jd"]]
    expected = [winter_point(p) for p in (*sorted(earlier, key=lambda p: p["jd"]), own)]
    assert len(row["light_curve"]) == len(expected)
    for got, point in zip(row["light_curve"], expected, strict=True):
        close(got, point)
        assert bool(got["flags"] & 2) == (point["flux_njy"] < 0)
    night = night_of(row["t_mjd_tai"], row["survey"])
    evening = (own["jd"] - 2_400_000.5) + WINTER.site.longitude_deg / 360  # local mean time
    assert abs(evening - (night + 1)) < 0.5 + 0.05


def a_rise(schema: Any, fids: tuple[int, ...]) -> bytes:
    """A made-up object's packet of ZTF's or WINTER's shape: a bump in each of three bands."""
    points = []
    for k in range(60):
        flux = 100 + 900 * math.exp(-(((k - 30) / 12) ** 2)) * (1 + 0.3 * (k % 3))
        points.append(
            {
                "candid": k + 1, "jd": 2_460_000.5 + k, "fid": fids[k % 3], "ra": 10.0, "dec": 20.0,
                "magpsf": 31.4 - 2.5 * math.log10(flux * 1_000), "sigmapsf": 0.03, "pid": k,
                "isdiffpos": True if schema is WINTER_SCHEMA else "t", "rb": 0.5, "boardid": 1,
                "fwhm": 2.0,
            }
        )  # fmt: skip
    value = {
        "schemavsn": "1", "objectId": "ZTF24aaaaaaa", "objectid": "WNTR24aaaaa", "candid": 60,
        "candidate": points[-1], "prv_candidates": points[:-1], "fp_hists": None, "cutoutScience": None,
        "cutout_science": b"", "cutout_template": b"", "cutout_difference": b"",
    }  # fmt: skip
    return contained(schema, value)


def test_winters_light_curves_have_the_features_of_the_bands_that_they_count_as() -> None:
    """The same measurements by ZTF have the same features, band for band in order."""
    infrared = read_alerts(a_rise(WINTER_SCHEMA, (1, 2, 3)))
    optical = read_alerts(a_rise(ZTF_SCHEMA, (1, 2, 3)))
    families = [family.name for family in ALL_FAMILIES if family.name not in {"fit", "gp"}]
    found = {
        name: compute_features(table, families).drop_columns(["reasons"]).to_pylist()[0]
        for name, table in (("winter", infrared), ("ztf", optical))
    }
    assert found["winter"]["n_points"] == 60
    assert found["winter"]["n_bands"] == 3
    places = dict(zip("gri", "izy", strict=True))  # ZTF's band, and the one in WINTER's place
    per_band = [name for name in found["ztf"] if re.fullmatch(r"[gri]_[a-z_0-9]+", name)]
    assert len(per_band) > 30
    for name in per_band:
        assert found["winter"][places[name[0]] + name[1:]] == found["ztf"][name], name
    for name in ("span_days", "peak_flux_njy", "chi2_constant", "period_power"):
        assert found["winter"][name] == found["ztf"][name]
    values, why = feature_arrays(infrared, ALL_FAMILIES)
    assert np.isfinite(values[why == 0]).all()
    assert (why == 0).mean() > 0.5


# -- a survey that is registered while the program runs ----------------------------------------------


def hale_packet(n: int = 30) -> bytes:
    points = [
        {"mjd": 60_000.0 + 2 * k, "filter": "co"[k % 2], "flux": 1_000.0 + k, "error": 10.0}
        for k in range(n)
    ]
    value = {"id": 5, "object": 6, **points[-1], "before": points[:-1]}
    return framed(HALE_SCHEMA, value, 3)


def test_a_survey_registered_at_run_time_is_read_as_any_other(real_packets: list[bytes]) -> None:
    schemas = Schemas(ZTF_SCHEMA, WINTER_SCHEMA, HALE_SCHEMA)
    ztf = b"\0\0\0\0\1" + plausible(3)
    before = read_alerts(real_packets[:3]), Decoder(schemas).decode(packets_of([ztf]))
    with registered(HALE):
        table = Decoder(schemas).decode(packets_of([hale_packet(), ztf]))
        (row, other) = table.to_pylist()
        assert (row["survey"], row["band"], row["dia_source_id"]) == ("hale", "orange", 5)
        assert [point["band"] for point in row["light_curve"]] == ["cyan", "orange"] * 15
        assert other == before[1].to_pylist()[0]
        assert read_alerts(real_packets[:3]).to_pylist() == before[0].to_pylist()
        features = compute_features(table[:1]).to_pylist()[0]
        assert (features["g_max_njy"], features["r_max_njy"]) == (1_028.0, 1_029.0)
        assert features["u_max_njy"] is None
        assert night_of(60_000.9, "hale") == 59_999
        again = light_curves_of(
            pa.table({"light_curve": light_curve_column(light_curves_of(table))})
        )
        assert again.band.tobytes() == light_curves_of(table).band.tobytes()
    with pytest.raises(ConfigurationError, match="no survey is called hale: lsst, ztf, winter"):
        night_of(60_000.9, "hale")


def test_kernels_that_take_any_band_take_the_new_ones() -> None:
    t = np.arange(0.0, 60.0, 1.5)
    flux = 1_000 * np.exp(-0.5 * ((t - 25) / 8) ** 2)
    offsets, sigma = np.array([0, t.size]), np.full(t.size, 20.0)
    old = fit_gp(offsets, t, np.zeros(t.size, np.int8), flux, sigma)
    with registered(HALE):
        cyan = np.full(t.size, BAND_CODES["cyan"], np.int8)
        new = fit_gp(offsets, t, cyan, flux, sigma)
        assert (new.length, new.amplitude) == (old.length, old.amplitude)
        both = np.array([[BAND_CODES["cyan"]], [BAND_CODES["orange"]]], np.int8)
        mean, _ = predict_gp(t, cyan, flux, sigma, 500.0, 10.0, t[:1] + 25, both)
        across = math.sqrt(3) * (680 - 530) / 600
        assert mean[1, 0] / mean[0, 0] == pytest.approx((1 + across) * math.exp(-across))
        wave = 100 + 30 * np.sin(2 * np.pi * t / 3.7)
        known = find_periods(offsets, t, np.zeros(t.size, np.int8), wave, sigma)
        assert find_periods(offsets, t, cyan, wave, sigma).period == known.period
        assert wavelengths_nm()[-2:].tolist() == [530.0, 680.0]
    assert fit_gp(offsets, t, cyan, flux, sigma).why[0] != 0


# -- nights -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("survey", SURVEYS.values())
def test_a_night_turns_by_day_at_its_site_in_every_season(survey: Survey) -> None:
    """astropy's sun is up from then on for at least four hours."""
    site = survey.site
    place = EarthLocation(
        lon=site.longitude_deg * u.deg, lat=site.latitude_deg * u.deg, height=site.height_m * u.m
    )
    days = 60_000 + np.arange(0, 366, 7.0)
    turns = (days[:, None] + site.night_turns + np.array([0, 2, 4]) / 24).ravel()
    with iers.conf.set_temp("auto_download", value=False), iers.conf.set_temp("auto_max_age", None):
        times = Time(turns, format="mjd", scale="tai")
        altitude = get_sun(times).transform_to(AltAz(obstime=times, location=place)).alt.deg
    assert altitude.min() > 0
    assert night_of(days[1] + site.night_turns, survey.name) == days[1]
    assert night_of(days[1] + site.night_turns - 1e-6, survey.name) == days[1] - 1


@given(st.floats(50_000, 70_000), st.sampled_from(list(SURVEYS)))
def test_nights_of_a_survey_are_those_of_its_parts(t: float, survey: str) -> None:
    nights = night_of(np.array([t, t + 1]), survey)
    assert nights.tolist() == [night_of(t, survey), night_of(t, survey) + 1]
    assert 0 <= t - night_of(t, survey) - SURVEYS[survey].site.night_turns < 1
    assert survey != "lsst" or night_of(t) == night_of(t, survey)


# -- light curves in both of their forms --------------------------------------------------------------


def same_arrays(table: pa.Table, curves: Any) -> None:
    unpacked = light_curves_of(table)
    assert curves.offsets.dtype == np.int64
    for name, expected in vars(unpacked).items():
        got = getattr(curves, name)
        assert (got.dtype, got.tobytes()) == (expected.dtype, expected.tobytes()), name


def mixed(seed: int, n: int) -> tuple[Decoder, list[bytes]]:
    """Packets of three surveys and of none, some of which cannot be read, in any order."""
    chance = np.random.default_rng(seed)
    v10 = package_schemas().schema(1000)
    schemas = Schemas(ZTF_SCHEMA, WINTER_SCHEMA, record("x", {"y": "int"}), v10)
    winter = winter_packet()
    no_time = framed(WINTER_SCHEMA, winter_packet(float("nan")), 2)
    bad = [
        b"",
        b"Obj\x01",
        b"\1",
        b"\0\0\0\0\3",
        b"\0\0\0\0\x09x",
        winter[:-3],
        winter + b"\0",
        no_time,
    ]
    packets = []
    for k in range(n):
        kind = int(chance.integers(5))
        lsst = b"\0\0\0\0\4" + encode(v10, random.Random(seed * 100 + k))
        good = b"\0\0\0\0\1" + plausible(seed * 100 + k)
        packets.append(
            [good, lsst, winter, bad[int(chance.integers(len(bad)))], good[: len(good) // 2]][kind]
        )
    return Decoder(schemas), packets


def winter_packet(jd: float = 2_460_010.5) -> Any:
    own = {"candid": 9, "jd": jd, "fid": 2, "isdiffpos": True, "ra": 1.0, "dec": 2.0, "magpsf": 17.0,
           "sigmapsf": 0.125}  # fmt: skip
    value = {
        "schemavsn": "0.4", "objectid": "WNTR24aaaaa", "candid": 9,
        "candidate": {**own, "boardid": 1, "fwhm": None},
        "prv_candidates": [{**own, "jd": 2_460_000.5 + k} for k in range(4)],
        "cutout_science": b"", "cutout_template": b"", "cutout_difference": b"",
    }  # fmt: skip
    return value if math.isnan(jd) else framed(WINTER_SCHEMA, value, 2)


@given(st.integers(0, 10_000), st.integers(0, 14), st.sampled_from([1, 700, 1 << 25]))
@settings(max_examples=60, deadline=None)
def test_both_forms_of_light_curves_are_one(seed: int, n: int, chunk: int) -> None:
    decoder, packets = mixed(seed, n)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lightcurves.decode.CHUNK_BYTES", chunk)
        laid = packets_of(packets)
        both = decoder.decode_both(laid)
        assert both.alerts.equals(decoder.decode(laid))
    assert len(both.curves) == both.alerts.num_rows == n
    same_arrays(both.alerts, both.curves)
    alone = [decoder.decode(packets_of([packet])).to_pylist()[0] for packet in packets]
    assert both.alerts.to_pylist() == alone
    rejected = np.asarray(both.alerts["reject_reason"].is_valid())
    assert not both.curves.counts()[rejected].any()


def test_both_forms_of_real_light_curves_are_one(real_packets: list[bytes]) -> None:
    decoder = Decoder(package_schemas())
    for packets in (real_packets, [real_packets[0], b"garbage", *real_packets[1:9]], []):
        both = decoder.decode_both(packets_of(packets))
        assert both.alerts.equals(decoder.decode(packets_of(packets)))
        same_arrays(both.alerts, both.curves)


def test_the_column_is_packed_from_the_arrays_and_not_copied(real_packets: list[bytes]) -> None:
    both = Decoder(package_schemas()).decode_both(packets_of(real_packets))
    column = both.alerts["light_curve"].chunk(both.alerts["light_curve"].num_chunks - 1)
    packed = column.values.field("flux_njy").to_numpy()
    assert np.shares_memory(packed, both.curves.flux_njy)


# -- how messages are framed --------------------------------------------------------------------------


def test_a_whole_container_as_a_message_says_that_it_is_one(data_dir: Path) -> None:
    file = next((data_dir / "ztf" / "ipac").glob("*.avro")).read_bytes()
    assert read_alerts(file)["reject_reason"].null_count == 1  # by itself it is a file
    reasons = read_alerts([b"", file, file[:4], file[:3], b"Obj\x02"])["reject_reason"].to_pylist()
    assert reasons == [
        "empty_message",
        "container_message",
        "container_message",
        "bad_frame",
        "bad_frame",
    ]
    frames = list(framed_packets(data_dir / "lsst" / "real_v10_0.avro"))
    assert all(frame[0] == 0 for frame in frames)
    assert {s.name: s.framing for s in SURVEYS.values()} == {
        "lsst": Framing.CONFLUENT, "ztf": Framing.CONTAINER, "winter": Framing.CONTAINER,
    }  # fmt: skip
