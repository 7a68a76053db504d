"""Which light curves are not needed any more, because packets contain their object's history.

:func:`superseded` is the rule, docs/decisions/0009-thinning.md says why; :func:`glance` reads what the rule
needs from a file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple
from zlib import crc32

import numba as nb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import sqlalchemy as sa

from store import tables
from store.database import reading

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from store.keys import Key

_SAME_DAYS: Final = 1e-6


def protected_objects(engine: sa.Engine) -> frozenset[Key]:
    """Return the objects of which training may use every alert: those with a label or a request for one."""
    with reading(engine) as connection:
        return frozenset(
            (survey, object_id)
            for table in (tables.labels, tables.label_requests)
            for survey, object_id in connection.execute(
                sa.select(table.c.survey, table.c.object_id)
            )
        )


def number_of(survey: str) -> int:
    """Return a number that represents a survey's name, for columns with millions of rows."""
    return crc32(survey.encode())


class Glance(NamedTuple):
    """What the rule needs to know of alerts that have a light curve, one value per alert.

    ``survey`` int64, see :func:`number_of`; ``object_id`` int64, 0 if there is none; ``t`` float64,
    time of the alert (MJD TAI); ``start`` float64, of its first detection; ``processed_ms`` int64;
    ``n_points`` int64.
    """

    survey: NDArray[np.int64]
    object_id: NDArray[np.int64]
    t: NDArray[np.float64]
    start: NDArray[np.float64]
    processed_ms: NDArray[np.int64]
    n_points: NDArray[np.int64]


class Glanced(NamedTuple):
    """A file's alerts whose light curve may still be emptied (in the long run few), and its sizes.

    ``rows`` int64, their row numbers in the file; ``n_points`` and ``light_curve_bytes``, of all its rows.
    """

    alerts: Glance
    rows: NDArray[np.int64]
    n_points: int
    light_curve_bytes: int

    def points(self, n_rows: int) -> NDArray[np.int64]:
        """Return how many points each of the `n_rows` rows has; for those that stay, approximately."""
        others = self.n_points - int(self.alerts.n_points.sum())
        out = np.full(n_rows, -(-others // max(1, n_rows - len(self.rows))), np.int64)
        out[self.rows] = self.alerts.n_points
        return out


class Rule(NamedTuple):
    """What :func:`superseded` needs besides the alerts."""

    protected: frozenset[Key]
    before_ms: int


def superseded(alerts: Glance, protected: frozenset[Key], before_ms: int) -> NDArray[np.bool_]:
    """Return of which alerts the light curve is not needed any more.

    A light curve is kept if one of these is true:

    - it is the newest of its object: the page shows it, and a re-scoring scores it;
    - its object has a label or a request for one: training uses its alerts as they were;
    - it was read at `before_ms` or later;
    - it is needed to cover the object's history without a gap: packets contain about one year, so that the
      whole history can be put together from one alert per year;
    - it belongs to no object: packets of the Solar System contain no history.

    Parameters
    ----------
    alerts
        Those that have a light curve, in any order.
    protected
        Objects of which all light curves are kept.
    before_ms
        Wall clock; alerts that were read later are kept.

    Returns
    -------
    ndarray of bool
        One for each alert.
    """
    rows = np.flatnonzero(alerts.object_id)
    by = (-alerts.start, alerts.t, alerts.object_id, alerts.survey)
    order = rows[np.lexsort([values[rows] for values in by])]
    survey, object_id = alerts.survey[order], alerts.object_id[order]
    another = (np.diff(survey, prepend=-1) != 0) | (np.diff(object_id, prepend=0) != 0)
    out = np.zeros(len(alerts.t), bool)
    out[order] = _covered(np.cumsum(another), alerts.t[order], alerts.start[order])
    out &= alerts.processed_ms < before_ms
    for name in {survey for survey, _ in protected}:
        ids = [object_id for survey, object_id in protected if survey == name]
        out &= (alerts.survey != number_of(name)) | ~np.isin(alerts.object_id, ids)
    return out


@nb.njit(nogil=True, cache=True)
def _covered(owner, t, start):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Cover each object's history with the fewest alerts, walking from the newest back.

    Of the alerts whose light curves still overlap with what is kept, the one that reaches furthest back is
    kept next; if none overlaps, there is a gap, and the alert before the gap is kept next.
    """
    out = np.ones(len(t), np.bool_)
    reach, best = 0.0, -1
    for i in range(len(t) - 1, -1, -1):
        if i + 1 == len(t) or owner[i + 1] != owner[i]:  # its newest
            out[i] = False
            reach = start[i]
        else:
            if t[i] < reach and best >= 0:
                out[best] = False
                reach, best = start[best], -1
            if start[i] < reach - _SAME_DAYS and (best < 0 or start[i] < start[best]):
                best = i
        if best >= 0 and (i == 0 or owner[i - 1] != owner[i]):
            out[best] = False
            best = -1
    return out


def glance(path: Path) -> Glanced:
    """Read what the rule needs from a file; of the light curves only one small column, for their lengths."""
    file = pq.ParquetFile(path)
    columns = [file.schema.column(k).path for k in range(len(file.schema))]
    inside = [k for k, name in enumerate(columns) if name.startswith("light_curve.")]
    wanted = ["survey", "object_id", "t_mjd_tai", "days_since_first_detection", "processed_ms"]
    wanted.append(columns[inside[-1]])
    groups = [file.metadata.row_group(k) for k in range(file.num_row_groups)]
    begins = np.cumsum([0, *(group.num_rows for group in groups)])
    parts = [
        _glance_of(file.read_row_group(k, columns=wanted), int(begins[k]))
        for k in range(len(groups))
    ]
    parts.append(_glance_of(file.schema_arrow.empty_table(), 0))  # there may be no group at all
    return Glanced(
        together(part.alerts for part in parts),
        np.concatenate([part.rows for part in parts]),
        sum(part.n_points for part in parts),
        sum(group.column(k).total_compressed_size for group in groups for k in inside),
    )


def together(parts: Iterable[Glance]) -> Glance:
    """Join alerts of several files, in their order."""
    columns: Iterable[Any] = map(np.concatenate, zip(*parts, strict=True))
    return Glance(*columns)


def _glance_of(rows: pa.Table, begin: int) -> Glanced:
    def numbers(name: str, kind: pa.DataType) -> NDArray[Any]:
        column = rows[name] if name in rows.column_names else pa.nulls(rows.num_rows, kind)
        return np.asarray(pc.fill_null(column, pa.scalar(0, kind)))

    owner, t = numbers("object_id", pa.int64()), numbers("t_mjd_tai", pa.float64())
    start = t - numbers("days_since_first_detection", pa.float64())
    processed_ms = numbers("processed_ms", pa.int64())
    lengths = pc.list_value_length(rows["light_curve"])
    n_points = np.asarray(pc.fill_null(lengths, 0), np.int64)
    held = np.flatnonzero(np.asarray(pc.is_valid(rows["light_curve"])) & (owner != 0))
    columns: Iterable[Any] = (_numbers_of(rows), owner, t, start, processed_ms, n_points)
    alerts = Glance(*(values[held] for values in columns))
    return Glanced(alerts, begin + held, int(n_points.sum()), 0)


def _numbers_of(rows: pa.Table) -> NDArray[np.int64]:
    surveys = pc.fill_null(rows["survey"].cast(pa.string()), "").combine_chunks()
    coded = surveys.dictionary_encode()
    numbers = np.array([number_of(name) for name in coded.dictionary.to_pylist()], np.int64)
    of_rows: NDArray[np.int64] = numbers[np.asarray(coded.indices)]
    return of_rows
