"""A made-up night: objects with light curves, scores, requests, labels and models; seeded."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import sqlalchemy as sa

from lightcurves.bands import LSST_BANDS
from store import registry, tables
from store.labels import report_label
from store.requests import ask
from store.sky import healpix_of
from tests.manifests import manifest

NOW_MS: Final = 1_773_200_000_000
FIRST_ID: Final = 169_298_437_283_840_013
"""Above 2**53: a double cannot hold it."""
T0: Final = 61_109.2
CLASSES: Final = (111, 112, 113, 115, 122, 131, 214, 221)

_FIGURES: Final = {
    "n_objects": 392,
    "champion_log_loss": 0.958,
    "challenger_log_loss": 0.921,
    "gain": 0.037,
    "gain_lower": 0.018,
    "confidence": 0.9,
    "champion_macro_f1": 0.611,
    "challenger_macro_f1": 0.634,
    "passed": True,
}


def fill(engine: sa.Engine, n_objects: int = 60) -> list[int]:
    """Fill the tables; returns the object ids."""
    rng = np.random.default_rng(4)
    with engine.begin() as connection:
        add_models(connection)
        ids = [add_object(connection, at, rng) for at in range(n_objects)]
        add_solar_system_object(connection)
        add_rejects(connection)
        add_accounting(connection)
        for at, object_id in enumerate(ids[:24]):
            add_request(connection, object_id, at)
        for at, object_id in enumerate(ids[:9]):
            add_label(connection, object_id, at)
    return ids


def add_models(connection: sa.Connection) -> None:
    for at, (version, n) in enumerate((("20260310-5c1e7a", 1_570), ("20260311-b07d42", 1_611))):
        metrics = {
            "log_loss": 0.958 - 0.037 * at,
            "macro_f1": 0.61 + 0.02 * at,
            "accuracy": 0.68 + 0.02 * at,
            "ece": 0.031,
            "coverage": 0.9,
        }
        registry.register_model(
            connection,
            manifest(version, tuple(CLASSES), metrics, n_objects=n),
            Path("/models") / version,
            now_ms=NOW_MS - 7_200_000 + at * 7_000_000,
        )
    _promote_both(connection)


def _promote_both(connection: sa.Connection) -> None:
    registry.promote(
        connection,
        "champion",
        "20260310-5c1e7a",
        reason="first model",
        now_ms=NOW_MS - 7_100_000,
    )
    lost = {**_FIGURES, "gain": -0.006, "gain_lower": -0.021, "passed": False}
    for gate, tried, n_labels in ((lost, 900_000, 40), (_FIGURES, 150_000, 80)):
        registry.record_trial(
            connection,
            champion_version="20260310-5c1e7a",
            challenger_version="20260311-b07d42" if gate["passed"] else "20260311-11a9f0",
            n_labels=n_labels,
            promoted=bool(gate["passed"]),
            gate=gate,
            now_ms=NOW_MS - tried,
        )
    registry.promote(
        connection,
        "champion",
        "20260311-b07d42",
        reason="gate passed with 80 labels: log-loss +0.037 better",
        gate=_FIGURES,
        now_ms=NOW_MS - 149_000,
    )


def add_object(connection: sa.Connection, at: int, rng: np.random.Generator) -> int:
    """An object with some alerts whose scores sharpen as time passes."""
    object_id = FIRST_ID + at * 7_919
    truth = CLASSES[at % len(CLASSES)]
    n_alerts = int(rng.integers(1, 14))
    ra, dec = float(rng.uniform(140, 160)), float(rng.uniform(-30, 3))
    start = T0 - float(rng.uniform(2, 60))
    times = start + np.sort(rng.uniform(0, T0 - start, n_alerts))
    strange = float(rng.beta(2, 5))
    rows = [
        alert(object_id, at * 100 + k, t, start, truth, strange, rng)
        | {"ra_deg": ra, "dec_deg": dec}
        for k, t in enumerate(times.tolist())
    ]
    healpix = int(healpix_of(ra, dec))
    for row in rows:
        row["healpix"] = healpix
    connection.execute(tables.classifications.insert(), rows)
    connection.execute(tables.objects.insert().values(_folded(rows)))
    return object_id


def _folded(rows: list[dict[str, Any]]) -> dict[str, Any]:
    last = rows[-1]
    names = (
        "object_id", "survey", "ra_deg", "dec_deg", "healpix", "class_id", "probability",
        "entropy", "novelty", "novelty_far", "model_version",
    )  # fmt: skip
    return {name: last[name] for name in names} | {
        "first_mjd_tai": rows[0]["t_mjd_tai"],
        "last_mjd_tai": last["t_mjd_tai"],
        "n_alerts": len(rows),
        "last_dia_source_id": last["dia_source_id"],
    }


def alert(
    object_id: int,
    number: int,
    t: float,
    start: float,
    truth: int,
    strange: float,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """One scored alert."""
    logits = rng.normal(0, 0.8, len(CLASSES))
    logits[CLASSES.index(truth)] += 0.8 + 0.08 * (t - start)
    p = np.exp(logits) / np.exp(logits).sum()
    order = np.argsort(-p)
    cumulated = np.cumsum(p[order])
    members = order[: int(np.searchsorted(cumulated, 0.9)) + 1]
    return {
        "dia_source_id": 3_000_000_000_000_000_000 + number,
        "object_id": object_id,
        "ss_object_id": None,
        "survey": "lsst",
        "topic": "alerts",
        "kafka_partition": 0,
        "kafka_offset": number,
        "run_id": "live",
        "batch_id": number // 1000,
        "t_mjd_tai": t,
        "arrival_ms": NOW_MS - 400_000,
        "processed_ms": NOW_MS - 398_700,
        "band": str(rng.choice(LSST_BANDS)),
        "flux_njy": float(rng.normal(6_000, 3_000)),
        "sigma_njy": 210.0,
        "n_points": 12,
        "days_since_first_detection": t - start,
        "reason": None,
        "class_id": CLASSES[int(order[0])],
        "probability": float(p.max()),
        "probabilities": {str(c): float(v) for c, v in zip(CLASSES, p, strict=True)},
        "prediction_set": sorted(CLASSES[int(k)] for k in members),
        "entropy": float(-(p * np.log(p)).sum()),
        "margin": float(p[order[0]] - p[order[1]]),
        "novelty": float(np.clip(strange + rng.normal(0, 0.03), 0, 1)),
        "novelty_far": 0.04,
        "model_version": "20260311-b07d42",
        "feature_digest": "9f86d081",
    }


def not_evaluated(row: dict[str, Any], reason: str) -> dict[str, Any]:
    """The same alert without a score."""
    scores = (
        "class_id", "probability", "probabilities", "prediction_set", "entropy", "margin",
        "novelty", "novelty_far",
    )  # fmt: skip
    return row | dict.fromkeys(scores) | {"reason": reason}


def add_solar_system_object(connection: sa.Connection) -> None:
    row = alert(0, 999_001, T0, T0, 111, 0.1, np.random.default_rng(1))
    row |= {"object_id": None, "ss_object_id": 23_133_931_615_299_632}
    connection.execute(
        tables.classifications.insert().values(not_evaluated(row, "solar_system_object"))
    )


def add_unscored_object(connection: sa.Connection, object_id: int = 5, survey: str = "lsst") -> int:
    """An object whose only alert has neither a score nor much else."""
    row = alert(object_id, 999_002, T0, T0, 111, 0.1, np.random.default_rng(1))
    row = not_evaluated(row, "no_finite_flux") | {
        "survey": survey, "topic": f"{survey} alerts",
        "ra_deg": 10.0, "dec_deg": -20.0, "healpix": 1, "model_version": None,
        "flux_njy": None, "sigma_njy": None, "band": None, "days_since_first_detection": None,
        "n_points": None, "feature_digest": None,
    }  # fmt: skip
    connection.execute(tables.classifications.insert().values(row))
    connection.execute(tables.objects.insert().values(_folded([row])))
    return object_id


def add_rejects(connection: sa.Connection) -> None:
    for offset, reason in enumerate(("truncated", "truncated", "unknown_schema")):
        connection.execute(
            tables.rejected.insert().values(
                topic="alerts", kafka_partition=1, kafka_offset=offset, run_id="live", batch_id=0,
                arrival_ms=NOW_MS, processed_ms=NOW_MS, reason=reason, detail="", packet=b"\0",
            )
        )  # fmt: skip


def add_accounting(connection: sa.Connection) -> None:
    connection.execute(
        tables.accounting.insert().values(
            run_id="live", batch_id=0, topic="alerts", kafka_partition=0, start_offset=0,
            end_offset=18_342, n_read=18_342, n_classified=17_905, n_not_evaluated=422,
            n_duplicate=12, n_rejected=3, model_version="20260311-b07d42",
            feature_digest="9f86d081", settings_digest="0", started_ms=NOW_MS, committed_ms=NOW_MS,
        )
    )  # fmt: skip


def add_request(connection: sa.Connection, object_id: int, at: int = 0, **values: Any) -> None:
    row = {
        "survey": "lsst", "object_id": object_id, "program": "noctule", "dia_source_id": object_id,
        "night": 61_108, "strategy": "entropy", "utility": 1.9 - 0.03 * at,
        "why": "uncertain: entropy 1.72 nats, above 0.50",
        "requested_ms": NOW_MS - 60_000 * (at + 1), "run_id": "live", "batch_id": 1,
        "model_version": "20260311-b07d42", "ra_deg": 150.1 + at / 7, "dec_deg": 2.2 - at / 3,
        "band": "gri"[at % 3], "flux_njy": 2_000.0 * (at + 1), "t_mjd_tai": T0,
    }  # fmt: skip
    ask(connection, [row | values])


def add_label(connection: sa.Connection, object_id: int, at: int = 0, **values: Any) -> int:
    given = {
        "class_id": CLASSES[at % len(CLASSES)],
        "reporter": "simulated telescope",
        "instrument": "low-resolution spectrograph",
        "confidence": 0.95,
        "redshift": 0.084,
        "now_ms": NOW_MS - 30_000 * (9 - at),
        **values,
    }
    return report_label(connection, survey="lsst", object_id=object_id, **given)


def light_curve(_survey: str, object_id: int) -> pa.Table:
    """A rise and decline in six bands, forced photometry before and between the detections."""
    rng = np.random.default_rng(object_id % 2**32)
    n = 84
    t = np.sort(T0 - rng.uniform(0, 85, n))
    band = rng.integers(0, 6, n)
    phase = t - (T0 - 38)
    shape = np.where(phase < 0, np.exp(-((phase / 9) ** 2)), np.exp(-phase / 21))
    sigma = 180 + 260 * (band == 5) + rng.uniform(0, 90, n)
    flux = 9_000 * (1 - 0.11 * np.abs(band - 2)) * shape + rng.normal(0, sigma)
    kind = np.where(flux > 5 * sigma, "source", "forced")
    kind[-1] = "alert"
    return points(t, [LSST_BANDS[b] for b in band], flux, sigma, kind.tolist())


def points(t: Any, band: list[str], flux: Any, sigma: Any, kind: list[str]) -> pa.Table:
    return pa.table(
        {
            "t_mjd_tai": pa.array(t, pa.float64()),
            "band": pa.array(band, pa.string()),
            "flux_njy": pa.array(flux, pa.float32()),
            "sigma_njy": pa.array(sigma, pa.float32()),
            "kind": pa.array(kind, pa.string()),
        }
    )
