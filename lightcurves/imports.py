"""Converts public challenge sets to light-curve folders: PLAsTiCC and SNPCC.

Columns are read by name, and of the columns with truth only the class is named here. So no other truth
can get into the folder, because it is never read.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from lightcurves.bands import LSST_BANDS
from lightcurves.errors import ConfigurationError
from lightcurves.folders import write_light_curves
from lightcurves.taxonomy import PLASTICC_CLASSES

if TYPE_CHECKING:
    from collections.abc import Mapping

NJY_PER_FLUXCAL: Final = 10 ** (0.4 * (31.4 - 27.5))
"""SNANA's FLUXCAL has the zero point 27.5, nJy has 31.4: 36.31 nJy each."""

SNPCC_DETECTION_SNR: Final = 5.0
"""The signal-to-noise ratio from which a measurement of SNPCC counts as a detection."""

SNPCC_CLASSES: Final = {"Ia": 111, "Ibc": 112, "II": 113}
"""``class3`` of SNPCC to classId."""

_PLASTICC_OBJECTS: Final = {
    "object_id": "object_id",
    "ra_deg": "ra",
    "dec_deg": "decl",
    "host_z_phot": "hostgal_photoz",
    "host_z_phot_err": "hostgal_photoz_err",
    "mw_ebv": "mwebv",
    "class": "target",
}
_PLASTICC_POINTS: Final = {
    "object_id": "object_id",
    "t_mjd_tai": "mjd",
    "band": "passband",
    "flux": "flux",
    "sigma": "flux_err",
    "detected": "detected_bool",
}
_SNPCC_OBJECTS: Final = {
    "object_id": "snid",
    "ra_deg": "ra",
    "dec_deg": "decl",
    "host_z_phot": "hostz_phot",
    "host_z_phot_err": "hostz_phot_err",
    "mw_ebv": "mwebv",
    "class": "class3",
}
_SNPCC_POINTS: Final = {
    "object_id": "snid",
    "t_mjd_tai": "mjd",
    "band": "band",
    "flux": "flux",
    "sigma": "flux_err",
}

_ENDINGS: Final = (".parquet", ".csv", ".csv.gz")
_PACKAGE: Final = "snmachine"


def plasticc_source() -> Path:
    """Return the folder of PLAsTiCC's training set inside the installed package ``snmachine``.

    The package is never imported, because its dependencies are not installed.

    Raises
    ------
    ConfigurationError
        The package, or the set inside it, is not installed.
    """
    try:
        files = metadata.files(_PACKAGE) or []
    except metadata.PackageNotFoundError as error:
        raise ConfigurationError(
            f"the package {_PACKAGE}, which contains PLAsTiCC, is not installed: run 'make setup'"
        ) from error
    for file in files:
        path = Path(str(file.locate()))
        if file.name == "plasticc_train_metadata.csv" and path.is_file():
            return path.parent
    raise ConfigurationError(f"{_PACKAGE} is installed without PLAsTiCC: run 'make setup' again")


def import_plasticc(source: Path, folder: Path) -> int:
    """Write PLAsTiCC's training set as a light-curve folder; return the number of objects.

    Times are copied, bands 0 to 5 become u g r i z y, fluxes FLUXCAL become nJy. ``class_id`` comes
    from ``target``, null where :data:`~lightcurves.taxonomy.PLASTICC_CLASSES` lacks the number. A
    host redshift with error 0, which is how the set writes "galactic, no host", becomes null.

    Parameters
    ----------
    source
        Folder with ``plasticc_train_metadata`` and ``plasticc_train_lightcurves``, each as
        ``.parquet``, ``.csv`` or ``.csv.gz``; :func:`plasticc_source` is one.
    folder
        Where the light-curve folder goes; its two files are overwritten.

    Raises
    ------
    ConfigurationError
        A file or column is missing, or a file cannot be read.
    """
    objects = _read(source, "plasticc_train_metadata", _PLASTICC_OBJECTS)
    points = _read(source, "plasticc_train_lightcurves", _PLASTICC_POINTS)
    has_host = pc.greater(objects["host_z_phot_err"], 0.0)
    band = pa.array(LSST_BANDS).take(points["band"].combine_chunks())
    detected = pc.equal(points["detected"], 1)
    write_light_curves(
        folder,
        _objects(objects, has_host, PLASTICC_CLASSES),
        _points(points, band, detected),
    )
    return int(objects.num_rows)


def import_snpcc(source: Path, folder: Path) -> int:
    """Write the Supernova Photometric Classification Challenge as a light-curve folder.

    The set does not say which measurements are detections, so one counts as **detected if
    abs(flux) / sigma >= 5**. One without a positive error (the set writes -9) was not made and is
    left out. ``class_id`` comes from ``class3``; a negative host redshift becomes null. The bands
    are DES's g r i z, treated as LSST's.

    Parameters
    ----------
    source
        Folder with ``snpcc_metadata`` and ``snpcc_lightcurves``, each as ``.parquet``, ``.csv`` or
        ``.csv.gz``.
    folder
        Where the light-curve folder goes; its two files are overwritten.

    Returns
    -------
    int
        The number of objects.

    Raises
    ------
    ConfigurationError
        A file or column is missing, or a file cannot be read.
    """
    objects = _read(source, "snpcc_metadata", _SNPCC_OBJECTS)
    points = _read(source, "snpcc_lightcurves", _SNPCC_POINTS)
    points = points.filter(pc.greater(points["sigma"], 0.0))
    has_host = pc.greater_equal(objects["host_z_phot"], 0.0)
    snr = pc.divide(pc.abs(points["flux"]), points["sigma"])
    write_light_curves(
        folder,
        _objects(objects, has_host, SNPCC_CLASSES),
        _points(points, points["band"], pc.greater_equal(snr, SNPCC_DETECTION_SNR)),
    )
    return int(objects.num_rows)


def _objects(table: pa.Table, has_host: pa.ChunkedArray, classes: Mapping[Any, int]) -> pa.Table:
    """Return `table` with host redshifts where there is a host, and classIds for its classes."""
    nothing = pa.scalar(None, pa.float64())
    hosts = {
        name: pc.if_else(has_host, table[name], nothing)
        for name in ("host_z_phot", "host_z_phot_err")
    }
    class_id = [classes.get(name) for name in table["class"].to_pylist()]
    kept = {name: table[name] for name in ("object_id", "ra_deg", "dec_deg", "mw_ebv")}
    return pa.table({**kept, **hosts, "class_id": pa.array(class_id, pa.int32())})


def _points(table: pa.Table, band: pa.Array, detected: pa.ChunkedArray) -> pa.Table:
    kept = {name: table[name] for name in ("object_id", "t_mjd_tai")}
    fluxes = {"flux_njy": _njy(table["flux"]), "sigma_njy": _njy(table["sigma"])}
    return pa.table({**kept, **fluxes, "band": band, "detected": detected})


def _njy(fluxcal: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return FLUXCAL as nJy, both float32, so that text and Parquet give the same bits."""
    return pc.multiply(fluxcal.cast(pa.float32()).cast(pa.float64()), NJY_PER_FLUXCAL).cast(
        pa.float32(), safe=False
    )


def _read(source: Path, stem: str, columns: Mapping[str, str]) -> pa.Table:
    """Return the named columns of the file called `stem`, under their new names."""
    path = _find(source, stem)
    try:
        table = _read_file(path, list(columns.values()))
    except (pa.ArrowException, OSError) as error:
        raise ConfigurationError(f"{path} cannot be read: {_first_line(error)}") from error
    return pa.table({new: table[old] for new, old in columns.items()})


def _find(source: Path, stem: str) -> Path:
    for ending in _ENDINGS:
        path = source / f"{stem}{ending}"
        if path.is_file():
            return path
    raise ConfigurationError(
        f"no {stem} in {source} ({', '.join(_ENDINGS)}): name the folder that contains the set's files"
    )


def _read_file(path: Path, columns: list[str]) -> pa.Table:
    if path.suffix == ".parquet":
        absent = set(columns) - set(pq.read_schema(path).names)
        if absent:  # Parquet's reader silently ignores missing columns
            raise pa.ArrowInvalid(f"no column {', '.join(sorted(absent))}")
        return pq.read_table(path, columns=columns)
    options = pyarrow.csv.ConvertOptions(include_columns=columns)
    return pyarrow.csv.read_csv(path, convert_options=options)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
