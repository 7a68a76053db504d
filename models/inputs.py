"""The inputs of a model's parts, for a batch of objects; each is computed once, when it is first needed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lightcurves.arrays import light_curves_of
from lightcurves.features.declare import TOO_FEW_POINTS
from lightcurves.features.registry import compute, families_of, names_in
from lightcurves.features.table import context_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lightcurves.arrays import LightCurves
    from lightcurves.features.declare import Context

FEATURES: Final = "features"
LIGHT_CURVES: Final = "light_curves"
CONTEXT: Final = "context"
READS: Final = (FEATURES, LIGHT_CURVES, CONTEXT)
"""What a part may declare that it reads; a column of the alerts is named ``column:<name>``."""

AGE: Final = "age_days"
"""Days since the first detection: known for every object that has a usable point."""


class _Block(NamedTuple):
    """Features that are known: (rows, features), and the index of the reason for each missing value."""

    names: tuple[str, ...]
    values: NDArray[np.float64]
    why: NDArray[np.int8]


class Inputs:
    """A batch of objects, one row each.

    Parameters
    ----------
    table
        From ``read_alerts`` or ``read_light_curves``.
    curves
        Its light curves, if they are at hand as arrays; else they are unpacked when first needed.

    Notes
    -----
    No part may write to the arrays that it gets: the next part sees the same arrays.
    """

    def __init__(self, table: pa.Table, curves: LightCurves | None = None) -> None:
        self._source: tuple[pa.Table, LightCurves | None] = (table, curves)
        self._rows: NDArray[np.int64] | None = None  # of the source; None: all
        self._n: int = table.num_rows
        self._blocks: list[_Block] = []

    @classmethod
    def of_features(
        cls,
        table: pa.Table,
        names: Sequence[str],
        values: NDArray[np.float64],
        why: NDArray[np.int8] | None = None,
    ) -> Inputs:
        """Return inputs whose features `names` are known; all others are computed from `table`.

        Parameters
        ----------
        table
            The objects; it needs no light curves if no other feature is requested.
        names, values
            float64 (rows, features), NaN where not evaluated.
        why
            int8 of the same shape, 0 where evaluated; None: NaN marks what was not evaluated.
        """
        inputs = cls(table)
        if why is None:
            why = np.where(np.isnan(values), TOO_FEW_POINTS, 0).astype(np.int8)
        inputs._blocks.append(_Block(tuple(names), values, why))
        return inputs

    @classmethod
    def of_stored(cls, table: pa.Table) -> Inputs:
        """Return inputs whose features are those of the column ``features``, as the stream stored them.

        The reasons for missing values are not stored: all of them count as too few points.
        """
        column = table["features"].combine_chunks()
        names = [field.name for field in column.type]
        values = np.full((table.num_rows, len(names)), np.nan)
        for k, name in enumerate(names):
            feature = pc.struct_field(column, name)
            evaluated = np.asarray(feature.is_valid())
            values[evaluated, k] = np.asarray(feature.drop_null(), np.float64)
        return cls.of_features(table, names, values)

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._n

    @cached_property
    def table(self) -> pa.Table:
        """The objects' table, all columns; no part may read labels or true classes from it."""
        table, _ = self._source
        return table if self._rows is None else table.take(pa.array(self._rows))

    @cached_property
    def light_curves(self) -> LightCurves:
        """The light curves as flat arrays."""
        _, curves = self._source
        if curves is None:
            return light_curves_of(self.table)
        return curves if self._rows is None else curves.of(self._rows)

    @cached_property
    def context(self) -> Context:
        """What is known of each object besides its light curve; NaN where unknown."""
        return context_of(self.table)

    def column(self, name: str) -> pa.ChunkedArray:
        """Return a column of the alerts."""
        return self.table[name]

    def features(self, names: Sequence[str]) -> NDArray[np.float64]:
        """Return float64 (rows, len(names)), C-contiguous; NaN where not evaluated.

        Families that compute missing ones are run together, in one pass over the points: a caller that
        needs several sets of features should first request all of them at once.

        Raises
        ------
        ConfigurationError
            A feature of that name is neither known nor computed by this version.
        """
        return self._chosen(names, "values")

    def why(self, names: Sequence[str]) -> NDArray[np.int8]:
        """Return int8 (rows, len(names)): 0, or the index in ``declare.REASON_CODES`` of the reason."""
        return self._chosen(names, "why")

    def ages(self) -> NDArray[np.float64]:
        """Return the days since the first detection; NaN where there is no usable point."""
        return np.ascontiguousarray(self.features([AGE])[:, 0])

    def known(self) -> tuple[str, ...]:
        """Return the names of the features that are already known."""
        return tuple(name for block in self._blocks for name in block.names)

    def take(self, rows: NDArray[np.int64]) -> Inputs:
        """Return the inputs of some rows, with all features that are already known."""
        part = Inputs(*self._source)
        part._rows = rows if self._rows is None else self._rows[rows]
        part._n = rows.size
        part._blocks = [_Block(b.names, b.values[rows], b.why[rows]) for b in self._blocks]
        return part

    def _chosen(self, names: Iterable[str], what: str) -> NDArray[Any]:
        names = tuple(names)
        self._know(names)
        # Features that were passed in take precedence: training hides in them what packets do not carry.
        where = {n: (b, k) for b in reversed(self._blocks) for k, n in enumerate(b.names)}
        blocks = {id(where[name][0]): where[name][0] for name in names}
        if len(blocks) == 1:  # almost always so, and the whole of it
            (block,) = blocks.values()
            if block.names == names:
                whole: NDArray[Any] = getattr(block, what)
                return whole
        out = np.empty((len(self), len(names)), np.int8 if what == "why" else np.float64)
        for at, name in enumerate(names):
            block, k = where[name]
            out[:, at] = getattr(block, what)[:, k]
        return out

    def _know(self, names: tuple[str, ...]) -> None:
        missing = set(names).difference(self.known())
        if missing:
            families = families_of(missing)
            values_and_why = compute(self.light_curves, self.context, families)
            self._blocks.append(_Block(names_in(families), *values_and_why))
