"""Splits a set of objects into three: for training, for comparing models, and for streaming."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lightcurves.errors import ConfigurationError
from lightcurves.folders import (
    LIGHT_CURVES_FILE,
    OBJECTS_FILE,
    read_parts,
    select_objects,
    write_light_curves,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

_STAMP: Final = "split.json"
_TRUTH_SCHEMA: Final = pa.schema([("object_id", pa.int64()), ("class_id", pa.int32())])


class Fractions(NamedTuple):
    """Shares of each class's objects; they add up to 1."""

    train: float = 0.25
    frozen: float = 0.15
    stream: float = 0.60


DEFAULT_FRACTIONS: Final = Fractions()


@dataclass(frozen=True)
class Split:
    """Paths of the three light-curve folders, and of the file that only the telescope reads."""

    folder: Path

    @property
    def train(self) -> Path:
        """Labelled objects, none of a withheld class."""
        return self.folder / "train"

    @property
    def frozen(self) -> Path:
        """Labelled objects of every class, never trained on: the gate compares models on them."""
        return self.folder / "frozen"

    @property
    def stream(self) -> Path:
        """The other objects, without labels, which are simulated as alerts."""
        return self.folder / "stream"

    @property
    def truth(self) -> Path:
        """``truth.parquet``: ``object_id`` and ``class_id`` of the streamed objects."""
        return self.folder / "truth.parquet"


def split_objects(
    folder: Path,
    out: Path,
    *,
    seed: int,
    withheld_classes: Iterable[int],
    fractions: Fractions = DEFAULT_FRACTIONS,
) -> Split:
    """Split a light-curve folder by object, class by class.

    Parameters
    ----------
    folder
        A light-curve folder.
    out
        Folder for the folders ``train``, ``frozen`` and ``stream``, and for ``truth.parquet``.
    seed
        Equal input and seed give equal parts; a class's parts do not depend on other classes.
    withheld_classes
        Classes that are not in ``train``: their share of it is streamed instead. ``frozen`` does contain
        them, so that the gate can see whether a new model has learned them.
    fractions
        Shares of each class, each cut rounded to the nearest whole object.

    Returns
    -------
    Split
        The paths. A second call with equal input and arguments writes nothing.

    Raises
    ------
    ConfigurationError
        `folder` is not a light-curve folder, or `fractions` do not add up to 1.

    Notes
    -----
    Objects without a class are streamed, and have no truth. The streamed ``objects.parquet`` has
    ``class_id`` null throughout.
    """
    withheld = frozenset(withheld_classes)
    _check(fractions)
    objects, points = read_parts(folder)
    split = Split(out)
    stamp = _stamp(folder, seed, withheld, fractions)
    if _is_done(split, stamp):
        return split
    (out / _STAMP).unlink(missing_ok=True)
    part = _assign(objects, seed, withheld, fractions)
    for number, target in enumerate((split.train, split.frozen, split.stream)):
        chosen, measured = select_objects(
            objects, points, objects["object_id"].filter(pa.array(part == number)).combine_chunks()
        )
        if target == split.stream:
            pq.write_table(_truth(chosen), split.truth)
            chosen = _without_class(chosen)
        write_light_curves(target, chosen, measured)
    (out / _STAMP).write_text(stamp)
    return split


def _check(fractions: Fractions) -> None:
    if min(fractions) < 0 or not np.isclose(sum(fractions), 1.0):
        raise ConfigurationError(f"fractions of a split must add up to 1: {tuple(fractions)}")


def _assign(
    objects: pa.Table, seed: int, withheld: frozenset[int], fractions: Fractions
) -> NDArray[np.int8]:
    """Return the part of each object: 0 train, 1 frozen, 2 stream."""
    classes = objects["class_id"].fill_null(-1).to_numpy()
    ids = objects["object_id"].to_numpy()
    part = np.full(classes.size, 2, np.int8)
    for class_id in np.unique(classes[classes >= 0]).tolist():
        members = np.flatnonzero(classes == class_id)
        members = members[np.argsort(ids[members])]
        train, frozen, _ = fractions
        train = 0.0 if class_id in withheld else train
        cuts = np.rint(np.cumsum([train, frozen]) * members.size).astype(int)
        shuffled = np.random.default_rng([seed, class_id]).permutation(members)
        part[shuffled[: cuts[0]]] = 0
        part[shuffled[cuts[0] : cuts[1]]] = 1
    return part


def _truth(objects: pa.Table) -> pa.Table:
    return objects.filter(pc.is_valid(objects["class_id"])).select(_TRUTH_SCHEMA.names)


def _without_class(objects: pa.Table) -> pa.Table:
    column = objects.schema.get_field_index("class_id")
    return objects.set_column(column, "class_id", pa.nulls(objects.num_rows, pa.int32()))


def _is_done(split: Split, stamp: str) -> bool:
    written = split.folder / _STAMP
    parts = (split.train, split.frozen, split.stream)
    files = [part / name for part in parts for name in (OBJECTS_FILE, LIGHT_CURVES_FILE)]
    return (
        written.is_file()
        and written.read_text() == stamp
        and all(file.is_file() for file in (*files, split.truth))
    )


def _stamp(folder: Path, seed: int, withheld: frozenset[int], fractions: Fractions) -> str:
    """Return, as text, everything that the split depends on: input digests and arguments."""
    digests = {name: _digest(folder / name) for name in (OBJECTS_FILE, LIGHT_CURVES_FILE)}
    arguments = {"seed": seed, "withheld": sorted(withheld), "fractions": list(fractions)}
    return json.dumps({**digests, **arguments}, indent=2)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
