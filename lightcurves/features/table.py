"""Features of a table of light curves, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from lightcurves.arrays import light_curves_of
from lightcurves.errors import ConfigurationError
from lightcurves.features.declare import REASON_CODES, Context, Family
from lightcurves.features.registry import REGISTERED, compute, default_families, names_in

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

_IDS: Final = ("dia_source_id", "object_id", "class_id")

REASONS_TYPE: Final = pa.list_(
    pa.struct(
        [
            ("feature", pa.dictionary(pa.int16(), pa.string())),
            ("reason", pa.dictionary(pa.int8(), pa.string())),
        ]
    )
)


def compute_features(table: pa.Table, families: Iterable[str] | None = None) -> pa.Table:
    """Compute features of the light curves in `table`.

    Parameters
    ----------
    table
        From ``read_alerts`` or ``read_light_curves``: ``light_curve`` (list of struct) and, if
        present, ``ra_deg``, ``dec_deg``, ``host_z_phot``, ``host_z_phot_err``,
        ``host_offset_arcsec``, ``mw_ebv``.
    families
        Names of families (``docs/features.md``); by default all but the expensive ones. A period or a
        Gaussian process has to be requested by name: it takes a hundred times as long as all the others.

    Returns
    -------
    pyarrow.Table
        The identifiers of `table`, then one float64 column per feature in the order of the families
        (of :data:`~.registry.FEATURES` by default), null where not evaluated, then ``reasons``: a list of
        (feature, reason code), one for each null. One row per row of `table`, in its order; a light
        curve with no usable point has no feature at all. Single points, equal times and equal
        fluxes give nulls where a feature needs more.

    Raises
    ------
    ConfigurationError
        There is no family of that name.

    Notes
    -----
    Time is linear in the points and does not depend on how the rows are split into batches.
    """
    chosen = default_families() if families is None else tuple(map(family_of, families))
    values, why = feature_arrays(table, chosen)
    names = names_in(chosen)
    ids = {name: table[name] for name in _IDS if name in table.column_names}
    columns = {name: pa.array(values[:, k], mask=why[:, k] != 0) for k, name in enumerate(names)}
    return pa.table({**ids, **columns, "reasons": _reasons(why, names)})


def family_of(name: str) -> Family:
    """Return the family with this name.

    Raises
    ------
    ConfigurationError
        There is none.
    """
    if name not in REGISTERED:
        raise ConfigurationError(f"no family of features is called {name}: {', '.join(REGISTERED)}")
    return REGISTERED[name]


def feature_arrays(
    table: pa.Table, families: tuple[Family, ...] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
    """Return the features of `table` as arrays; see :func:`~.registry.compute`."""
    return compute(light_curves_of(table), context_of(table), families)


def context_of(table: pa.Table) -> Context:
    """Return what `table` contains of each object besides its light curve; NaN if nothing."""
    return Context(*(_numbers(table, name) for name in Context._fields))


def _numbers(table: pa.Table, name: str) -> NDArray[Any]:
    if name not in table.column_names:
        return np.full(table.num_rows, np.nan)
    column = table[name].cast(pa.float64()).combine_chunks().fill_null(float("nan"))
    return np.asarray(column, np.float64)


def _reasons(why: NDArray[np.int8], feature_names: tuple[str, ...]) -> pa.ListArray:
    rows, features = np.nonzero(why)
    offsets = np.searchsorted(rows, np.arange(why.shape[0] + 1)).astype(np.int32)
    names = pa.DictionaryArray.from_arrays(
        features.astype(np.int16), pa.array(feature_names, pa.string())
    )
    codes = pa.array([str(code) if code else "" for code in REASON_CODES])
    reasons = pa.DictionaryArray.from_arrays(why[rows, features], codes)
    pairs = pa.StructArray.from_arrays([names, reasons], fields=list(REASONS_TYPE.value_type))
    return pa.ListArray.from_arrays(pa.array(offsets), pairs, type=REASONS_TYPE)
