"""ZTF's alerts: other units, other times, numbered bands and named objects, in the same columns."""

from __future__ import annotations

import io
import math
import random
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pytest
from astropy.time import Time  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from lightcurves.alerts import read_alerts
from lightcurves.decode import Decoder, decode_columns, light_curves, packets_of
from lightcurves.interpreter import NULL_INT64
from lightcurves.plan import compile_plan
from lightcurves.surveys import ZTF
from lightcurves.units import TAI_MINUS_UTC_S
from tests.lightcurves.avro import decode, encode
from tests.lightcurves.twin import DETECTED, NEGATIVE, Point, chosen, known

MAGNITUDES = {
    "jd": "double", "fid": "int", "pid": "long", "isdiffpos": "string", "ra": "double",
    "dec": "double", "magpsf": "float", "sigmapsf": "float", "rb": ["float", "null"],
}  # fmt: skip
COUNTS = {
    "field": ["int", "null"], "fid": "int", "pid": "long", "magzpsci": ["float", "null"],
    "jd": "double", "forcediffimflux": ["float", "null"], "forcediffimfluxunc": ["float", "null"],
    "procstatus": ["string", "null"],
}  # fmt: skip


def record(name: str, kinds: dict[str, Any]) -> dict[str, Any]:
    fields = [{"name": field, "type": kind} for field, kind in kinds.items()]
    return {"type": "record", "name": f"ztf.alert.{name}", "fields": fields}


def optional(kind: Any) -> Any:
    return kind if isinstance(kind, list) else [kind, "null"]


EARLIER = {
    name: kind if name in {"jd", "fid", "pid"} else optional(kind)
    for name, kind in MAGNITUDES.items()
}
SCHEMA = {
    "type": "record",
    "name": "ztf.alert",
    "fields": [
        {"name": "schemavsn", "type": "string"},
        {"name": "objectId", "type": "string"},
        {"name": "candid", "type": "long"},
        {"name": "candidate", "type": record("candidate", MAGNITUDES)},
        {
            "name": "prv_candidates",
            "type": [{"type": "array", "items": record("prv_candidate", EARLIER)}, "null"],
        },
        {
            "name": "fp_hists",
            "type": [{"type": "array", "items": record("fp_hist", COUNTS)}, "null"],
        },
        {"name": "cutoutScience", "type": ["null", "bytes"]},
    ],
}  # fmt: skip
"""In the shape of 4.x, with few of its fields."""


def of_magnitude(m: float | None, sigma: float | None, sign: str | None) -> tuple[float, float]:
    s = {"t": 1.0, "1": 1.0, "f": -1.0, "0": -1.0}.get(sign or "", math.nan)
    if m is None or sigma is None:
        return math.nan, math.nan
    flux = 10 ** ((31.4 - m) / 2.5)
    return s * flux, flux * sigma * math.log(10) / 2.5


def of_counts(counts: float | None, sigma: float | None, zero: float | None) -> tuple[float, float]:
    if counts is None or sigma is None or zero is None or min(counts, sigma) < -99_998:
        return math.nan, math.nan
    return tuple(x * 10 ** ((31.4 - zero) / 2.5) for x in (counts, sigma))  # type: ignore[return-value]


def point_of(item: dict[str, Any], kind: int) -> Point:
    if kind == 0:
        names = ("forcediffimflux", "forcediffimfluxunc", "magzpsci")
        flux, sigma = of_counts(*(item[name] for name in names))
    else:
        flux, sigma = of_magnitude(item["magpsf"], item["sigmapsf"], item["isdiffpos"])
    band = {1: 6, 2: 7, 3: 8}.get(item["fid"], -1)
    t = item["jd"] - 2_400_000.5 + 37.0 / 86_400.0
    flags = 0
    if kind > 0:
        seen = item["magpsf"] is not None and item["isdiffpos"] in {"t", "1", "f", "0"}
        flags = (DETECTED if seen else 0) | (NEGATIVE if item["isdiffpos"] in {"f", "0"} else 0)
    return Point(
        t, item["pid"], band, float(np.float32(flux)), float(np.float32(sigma)), kind, flags
    )


def check(row: dict[str, Any], packet: dict[str, Any]) -> None:
    """The row of a packet holds what fastavro read in it."""
    own = packet["candidate"]
    alert = point_of(own, 2)
    assert row["survey"] == "ztf"
    assert row["dia_source_id"] == packet["candid"]
    assert np.base_repr(row["object_id"], 36) == packet["objectId"].upper()
    assert row["t_mjd_tai"] == pytest.approx(alert.t, abs=1e-9)
    assert (row["ra_deg"], row["dec_deg"]) == (known(own["ra"]), known(own["dec"]))
    points = [alert]
    points += [point_of(item, 1) for item in packet.get("prv_candidates") or ()]
    points += [point_of(item, 0) for item in packet.get("fp_hists") or ()]
    curve, _ = chosen(points, alert.t)
    found = row["light_curve"]
    assert [p["kind"] for p in found] == [("forced", "source", "alert")[p.kind] for p in curve]
    names = (None, *["ztf_g", "ztf_r", "ztf_i"])
    assert [p["band"] for p in found] == [names[max(p.band - 5, 0)] for p in curve]
    for got, point in zip(found, curve, strict=True):
        assert got["t_mjd_tai"] == pytest.approx(point.t, abs=1e-9)
        assert got["flux_njy"] == pytest.approx(point.flux, rel=1e-6)
        assert got["sigma_njy"] == pytest.approx(point.sigma, rel=1e-6)
        assert got["flags"] == point.flags


def files(data_dir: Path) -> Iterator[tuple[str, bytes]]:
    """Every alert file of the folder, those in its archives too."""
    for path in sorted((data_dir / "ztf").rglob("*")):
        if path.name.endswith(".tar.gz"):
            with tarfile.open(path) as archive:
                for member in archive:
                    if member.isfile() and (content := archive.extractfile(member)) is not None:
                        yield member.name, content.read()
        elif path.suffix == ".avro":
            yield path.name, path.read_bytes()


def test_real_packets_are_read_as_fastavro_reads_them(data_dir: Path) -> None:
    versions, points = set(), 0
    for name, content in files(data_dir):
        if not name.endswith(".avro"):
            continue
        try:
            reader = fastavro.reader(io.BytesIO(content))
            packets: list[Any] = list(reader)
        except (ValueError, IndexError):
            continue  # a dozen are broken; see the folder's README
        rows = read_alerts(content).to_pylist()
        assert len(rows) == len(packets)
        for row, packet in zip(rows, packets, strict=True):
            check(row, packet)
            points += len(row["light_curve"])
        schema: Any = reader.writer_schema
        versions.add(schema["version"])
    assert versions >= {"1.8", "3.0", "3.3"}
    assert points > 500


def plausible(seed: int) -> bytes:
    """A random packet whose numbers could be real."""
    chance = random.Random(seed)
    packet = decode(SCHEMA, encode(fastavro.parse_schema(SCHEMA, _write_hint=False), chance))
    packet["objectId"] = f"ZTF{chance.randrange(17, 27)}" + "".join(chance.choices("abcxyz", k=7))
    own = packet["candidate"]
    for item in (own, *(packet["prv_candidates"] or ()), *(packet["fp_hists"] or ())):
        item["jd"] = 2_460_000.5 + chance.uniform(-30, 0) * (item is not own)
        item["fid"], item["pid"] = chance.randint(1, 4), chance.randint(1, 6)
        item["isdiffpos"] = chance.choice("tf10x")
        for name, low, high in (
            ("magpsf", 14, 22),
            ("sigmapsf", 0.01, 0.3),
            ("forcediffimflux", -500, 5_000),
            ("forcediffimfluxunc", 1, 90),
            ("magzpsci", 25, 27),
        ):
            if item.get(name) is not None:
                none = name.startswith("forced") and chance.random() < 0.2
                item[name] = -99_999.0 if none else chance.uniform(low, high)
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, SCHEMA, packet)
    return buffer.getvalue()


class OneSchema:
    def schema(self, _schema_id: int) -> Any:
        return SCHEMA


def test_framed_packets_with_forced_photometry_are_read_as_fastavro_reads_them() -> None:
    bodies = [plausible(seed) for seed in range(300)]
    framed = [b"\0\0\0\0\7" + body for body in bodies]
    rows = Decoder(OneSchema()).decode(packets_of(framed)).to_pylist()
    kinds = set()
    for row, body in zip(rows, bodies, strict=True):
        check(row, decode(SCHEMA, body))
        kinds |= {point["kind"] for point in row["light_curve"]}
    assert kinds == {"forced", "source", "alert"}


def test_what_is_no_measurement_is_left_out_and_counted() -> None:
    """Upper limits have no magnitude; forced photometry that failed is -99999."""
    packet = decode(SCHEMA, plausible(1))
    limit = dict.fromkeys(EARLIER) | {"jd": 2_459_990.0, "fid": 1, "pid": 10}
    failed: dict[str, Any] = {
        "jd": 2_459_991.0,
        "fid": 1,
        "pid": 11,
        "magzpsci": 26.0,
        "field": None,
    }
    failed |= {"forcediffimflux": -99_999.0, "forcediffimfluxunc": -99_999.0, "procstatus": "56"}
    packet |= {"prv_candidates": [limit], "fp_hists": [failed]}
    packet["candidate"]["isdiffpos"] = "t"
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, SCHEMA, packet)
    columns = decode_columns(compile_plan(SCHEMA, ZTF), packets_of([buffer.getvalue()]))
    curves, removed = light_curves(columns)
    assert curves.counts().tolist() == [1]
    assert removed.tolist() == [[0, 2, 0, 0]]


def test_a_rejected_packet_marks_no_neighbour_as_negative() -> None:
    packet = decode(SCHEMA, plausible(1)) | {"prv_candidates": None, "fp_hists": None}
    bodies = []
    for sign in "ft":
        packet["candidate"]["isdiffpos"] = sign
        buffer = io.BytesIO()
        fastavro.schemaless_writer(buffer, SCHEMA, packet)
        bodies.append(b"\0\0\0\0\7" + buffer.getvalue())
    rows = Decoder(OneSchema()).decode(packets_of([bodies[0] + b"\0", bodies[1]])).to_pylist()
    assert rows[0]["reject_reason"] == "trailing_bytes"
    assert [point["flags"] for point in rows[1]["light_curve"]] == [DETECTED]


@given(st.text(st.sampled_from("0aAzZ9-_é "), max_size=14))
def test_a_name_is_its_number_in_base_36(name: str) -> None:
    packet = decode(SCHEMA, plausible(2)) | {"objectId": name}
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, SCHEMA, packet)
    columns = decode_columns(compile_plan(SCHEMA, ZTF), packets_of([buffer.getvalue()]))
    plain = name.isascii() and name.isalnum() and len(name) <= 12
    assert columns.alert_i64[1, 0] == (int(name, 36) if plain else NULL_INT64)


@pytest.mark.parametrize("year", [2017.9, 2020.0, 2026.9])
def test_tai_is_astropys(year: float) -> None:
    time = Time(year, format="jyear", scale="utc")
    difference_s = (time.tai.mjd - time.utc.mjd) * 86_400
    assert difference_s == pytest.approx(TAI_MINUS_UTC_S, abs=1e-4)


def test_cutouts_lie_in_a_record(data_dir: Path) -> None:
    file = next((data_dir / "ztf" / "ipac").glob("*.avro"))
    with file.open("rb") as opened:
        packets: list[Any] = list(fastavro.reader(opened))
    stamp = read_alerts(file, cutouts=True)["cutout_science"].to_pylist()
    assert stamp == [packet["cutoutScience"]["stampData"] for packet in packets]
