"""The parts of a model: they declare what they read, and are saved as plain numbers and text.

A *classifier* gives probabilities from inputs. A *combiner* turns those of several classifiers into one set.
A *calibration* makes them match frequencies, *sets* turn them into prediction sets of a chosen coverage. A
*detector* gives a strangeness from inputs and calibrated probabilities, and *novelty* turns the strangeness
from all detectors into one score. :mod:`models.kinds` lists the kinds of each.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, Self

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.inputs import Inputs
    from models.rows import TrainingRows, TrainingSettings

ROLES: Final = ("classifier", "combiner", "calibration", "sets", "detector", "novelty")
"""Roles of parts, in the order in which parts run; a model has one part per role, except :data:`SEVERAL`."""

SEVERAL: Final = ("classifier", "detector")


@dataclass(frozen=True)
class Packed:
    """A part as it is saved.

    Attributes
    ----------
    settings
        What JSON can hold: numbers, texts, lists, dictionaries.
    files
        Suffix (``npz``, ``txt``) to content. No content may execute when it is read.
    features
        Names of the features that the part reads, in the order in which it reads them.
    reads
        What else it reads: of :data:`models.inputs.READS`, or ``column:<name>``.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    features: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()


class Part(Protocol):
    """What every part can do. An instance is immutable and may be used by several threads."""

    role: ClassVar[str]
    kind: ClassVar[str]

    def pack(self) -> Packed:
        """Return the part in the form that is saved; :meth:`unpack` makes an equal part from it."""
        ...

    @classmethod
    def unpack(cls, packed: Packed) -> Self:
        """Return the part that :meth:`pack` packed.

        Raises
        ------
        ConfigurationError, ValueError, KeyError
            `packed` is no part of this kind.
        """
        ...


class PlainPart:
    """A base class that packs a frozen dataclass by its fields.

    ``features`` and ``reads`` become those of :class:`Packed`; arrays go into one ``.npz`` file; all
    else is a setting: numbers, texts, and tuples or dictionaries of them.
    """

    def pack(self) -> Packed:
        """Return the part in the form that is saved."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        declared = {name: values.pop(name) for name in ("features", "reads") if name in values}
        arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
        settings = {name: _plain(value) for name, value in values.items() if name not in arrays}
        files = {"npz": arrays_to_bytes(**arrays)} if arrays else {}
        return Packed(settings, files, **declared)

    @classmethod
    def unpack(cls, packed: Packed) -> Self:
        """Return the part that :meth:`pack` packed."""
        names = {f.name for f in fields(cls)}  # type: ignore[arg-type]
        arrays = arrays_of(packed.files["npz"]) if packed.files else {}
        declared = {n: getattr(packed, n) for n in ("features", "reads") if n in names}
        settings = {name: _tupled(value) for name, value in packed.settings.items()}
        return cls(**settings, **arrays, **declared)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _tupled(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _tupled(item) for key, item in value.items()}
    return tuple(_tupled(item) for item in value) if isinstance(value, list) else value


class Classifier(Part, Protocol):
    """Gives probabilities from inputs; their columns are the classes ``class_ids``."""

    @property
    def class_ids(self) -> tuple[int, ...]:
        """DESC classIds in the order of the columns of :meth:`probabilities`."""
        ...

    def probabilities(self, inputs: Inputs) -> NDArray[np.float64]:
        """Return float64 (rows, classes), each row sums to 1, not calibrated.

        A row's values depend on nothing but that row, to the last bit.
        """
        ...

    @classmethod
    def fit(
        cls, rows: TrainingRows, class_ids: tuple[int, ...], settings: TrainingSettings
    ) -> Self:
        """Return a classifier trained on `rows`; equal rows and settings give equal bits."""
        ...


class Detector(Part, Protocol):
    """Gives a strangeness from inputs and calibrated probabilities."""

    def strangeness(
        self, inputs: Inputs, probabilities: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return float64 (rows); larger is stranger, on the detector's own scale.

        A row's value depends on nothing but that row, to the last bit.
        """
        ...

    @classmethod
    def fit(
        cls, rows: TrainingRows, class_ids: tuple[int, ...], settings: TrainingSettings
    ) -> Self:
        """Return a detector trained on `rows`; equal rows and settings give equal bits."""
        ...


class Combiner(Part, Protocol):
    """Turns the probabilities of several classifiers into one set of probabilities."""

    def combine(self, outputs: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
        """Return float64 (rows, classes) from arrays of that shape, in the order of the classifiers."""
        ...

    @classmethod
    def fit(
        cls,
        outputs: Sequence[NDArray[np.float64]],
        truth: NDArray[np.int64],
        weights: NDArray[np.float64],
    ) -> Self:
        """Return a combiner fitted to out-of-fold probabilities."""
        ...


class Calibration(Part, Protocol):
    """Makes probabilities match frequencies."""

    def apply(self, probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return calibrated probabilities, float64 (rows, classes)."""
        ...


class Sets(Part, Protocol):
    """Turns calibrated probabilities into prediction sets."""

    def members(self, probabilities: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return bool (rows, classes): whether the class is in the set."""
        ...


class Novelty(Part, Protocol):
    """Turns the strangeness from all detectors into one score."""

    def novelty_of(self, strangeness: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
        """Return the novelty score in [0, 1]; larger is stranger. Keys are the detectors' kinds."""
        ...

    def false_alarm_rate(self, novelty: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the fraction of training rows that are at least this strange."""
        ...


def arrays_to_bytes(**arrays: NDArray[Any]) -> bytes:
    """Return arrays of numbers as the content of an ``.npz`` file; equal arrays give equal bytes."""
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    return file.getvalue()


def arrays_of(content: bytes) -> dict[str, NDArray[Any]]:
    """Return the arrays that :func:`arrays_to_bytes` saved.

    Raises
    ------
    ValueError
        `content` holds objects, which would have to be unpickled.
    """
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return {name: np.ascontiguousarray(arrays[name]) for name in arrays.files}
