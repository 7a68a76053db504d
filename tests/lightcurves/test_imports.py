from __future__ import annotations

import gzip
from importlib import metadata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from lightcurves.errors import ConfigurationError
from lightcurves.folders import OBJECTS_SCHEMA, POINTS_SCHEMA, read_light_curves, read_parts
from lightcurves.imports import (
    NJY_PER_FLUXCAL,
    import_plasticc,
    import_snpcc,
    plasticc_source,
)

METADATA = """\
object_id,ra,decl,hostgal_specz,hostgal_photoz,hostgal_photoz_err,mwebv,target,true_z,tflux_u
       7, 349.0461, -61.9438, 0.000, 0.000, 0.000, 0.017, 92, 0.000,  484.7
       8,  53.0859, -27.7844, 1.818, 1.627, 0.255, 0.007, 88, 1.817,  108.7
       9,  53.0859, -27.7844, 1.818, 0.000, 0.100, 0.007, 99, 1.817,  108.7
"""
POINTS = """\
object_id,mjd,passband,flux,flux_err,detected_bool
8,59750.4229,2,-1.0,2.0,1
7,59751.0,0,10.0,1.0,0
8,59749.0,5,3.0,1.0,0
"""


def write_plasticc(folder: Path, metadata_text: str = METADATA, points_text: str = POINTS) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "plasticc_train_metadata.csv").write_text(metadata_text)
    (folder / "plasticc_train_lightcurves.csv").write_text(points_text)
    return folder


def test_plasticc_becomes_a_light_curve_folder(tmp_path: Path) -> None:
    assert import_plasticc(write_plasticc(tmp_path / "set"), tmp_path / "out") == 3
    objects, points = read_parts(tmp_path / "out")
    assert objects.schema == OBJECTS_SCHEMA
    assert points.schema == POINTS_SCHEMA
    assert objects.to_pylist()[0] == {
        "object_id": 7,
        "ra_deg": 349.0461,
        "dec_deg": -61.9438,
        "host_z_phot": None,
        "host_z_phot_err": None,
        "host_offset_arcsec": None,
        "mw_ebv": 0.017,
        "class_id": 212,
    }
    assert objects["host_z_phot"].to_pylist() == [None, 1.627, 0.0]
    assert objects["class_id"].to_pylist() == [212, 221, None]
    assert points["band"].to_pylist() == ["r", "u", "y"]
    assert points["detected"].to_pylist() == [True, False, False]
    assert pytest.approx(36.3078, abs=1e-4) == NJY_PER_FLUXCAL
    expected = np.array([-1.0, 10.0, 3.0]) * NJY_PER_FLUXCAL
    np.testing.assert_array_equal(points["flux_njy"].to_numpy(), expected.astype(np.float32))
    assert len(read_light_curves(tmp_path / "out")["light_curve"][1]) == 2


def test_no_truth_but_the_class_reaches_the_folder(tmp_path: Path) -> None:
    """Another truth in the source gives the same folder, byte for byte."""
    other = METADATA.replace("1.817", "0.001").replace("484.7", "999.9").replace("1.818", "0.5")
    folders = []
    for name, text in (("a", METADATA), ("b", other)):
        import_plasticc(write_plasticc(tmp_path / name, text), tmp_path / f"{name}-out")
        folders.append(tmp_path / f"{name}-out")
    for file in ("objects.parquet", "light_curves.parquet"):
        assert (folders[0] / file).read_bytes() == (folders[1] / file).read_bytes()


def test_every_form_of_the_source_gives_the_same(tmp_path: Path) -> None:
    text, other = write_plasticc(tmp_path / "text"), tmp_path / "other"
    other.mkdir()
    packed = gzip.compress(METADATA.encode())
    (other / "plasticc_train_metadata.csv.gz").write_bytes(packed)
    points = pa.csv.read_csv(text / "plasticc_train_lightcurves.csv")
    pq.write_table(points, other / "plasticc_train_lightcurves.parquet")
    for source in (text, other):
        import_plasticc(source, tmp_path / f"{source.name}-out")
    first, second = (read_parts(tmp_path / f"{name}-out") for name in ("text", "other"))
    assert first[0].equals(second[0])
    assert first[1].equals(second[1])


def test_a_folder_without_the_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=f"no plasticc_train_metadata in {tmp_path}"):
        import_plasticc(tmp_path, tmp_path / "out")
    with pytest.raises(ConfigurationError, match=f"no snpcc_metadata in {tmp_path}"):
        import_snpcc(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("metadata_text", "points_text", "said"),
    [
        (METADATA.replace("mwebv", "dust"), POINTS, "metadata.csv cannot be read.*mwebv"),
        (METADATA, POINTS.replace("flux_err", "error"), "lightcurves.csv cannot be read.*flux_err"),
        (METADATA, POINTS + "8,1,2\n", "lightcurves.csv cannot be read"),
        ("", POINTS, "metadata.csv cannot be read"),
    ],
)
def test_a_broken_set_is_one_line(
    tmp_path: Path, metadata_text: str, points_text: str, said: str
) -> None:
    write_plasticc(tmp_path / "set", metadata_text, points_text)
    with pytest.raises(ConfigurationError, match=said) as error:
        import_plasticc(tmp_path / "set", tmp_path / "out")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"no Parquet", b""])
def test_a_broken_parquet_file_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "snpcc_metadata.parquet").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"snpcc_metadata\.parquet cannot be read"):
        import_snpcc(tmp_path, tmp_path / "out")


def test_a_missing_parquet_column_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"snid": [1]}), tmp_path / "snpcc_metadata.parquet")
    with pytest.raises(ConfigurationError, match="no column class3, decl, hostz_phot"):
        import_snpcc(tmp_path, tmp_path / "out")


def write_snpcc(folder: Path) -> Path:
    objects = {
        "snid": [17, 18, 19],
        "ra": [0.5] * 3,
        "decl": [-43.0] * 3,
        "hostz_phot": [0.35, -9.0, 0.0],
        "hostz_phot_err": [0.05, -9.0, 0.01],
        "mwebv": [0.01] * 3,
        "class3": ["II", "Ia", "Ibc"],
        "sim_z": [0.1, 0.2, 0.3],
    }
    points = {
        "snid": [17, 17, 17, 18, 18],
        "mjd": [56171.0, 56172.0, 56173.0, 56171.0, 56172.0],
        "band": pa.array(["g", "r", "i", "z", "g"]).dictionary_encode(),
        "flux": pa.array([5.0, -5.0, 4.9, -9.0, 1.0], pa.float32()),
        "flux_err": pa.array([1.0, 1.0, 1.0, -9.0, 0.0], pa.float32()),
    }
    pq.write_table(pa.table(objects), folder / "snpcc_metadata.parquet")
    pq.write_table(pa.table(points), folder / "snpcc_lightcurves.parquet")
    return folder


def test_snpcc_becomes_a_light_curve_folder(tmp_path: Path) -> None:
    assert import_snpcc(write_snpcc(tmp_path), tmp_path / "out") == 3
    objects, points = read_parts(tmp_path / "out")
    assert objects["class_id"].to_pylist() == [113, 111, 112]
    assert objects["host_z_phot"].to_pylist() == [0.35, None, 0.0]
    assert objects["host_z_phot_err"].to_pylist() == [0.05, None, 0.01]
    assert points["detected"].to_pylist() == [True, True, False]
    assert points["band"].to_pylist() == ["g", "r", "i"]


def test_plasticc_by_package_is_plasticc_from_the_data_folder(
    data_dir: Path, tmp_path: Path
) -> None:
    assert import_plasticc(plasticc_source(), tmp_path / "package") == 7848
    assert import_plasticc(data_dir / "plasticc", tmp_path / "data") == 7848
    by_package, by_data = read_parts(tmp_path / "package"), read_parts(tmp_path / "data")
    assert by_package[0].equals(by_data[0])
    assert by_package[1].equals(by_data[1])
    objects, points = by_data
    assert points.num_rows == 1_421_705
    assert pc.sum(points["detected"]).as_py() == 236_880
    assert objects["host_z_phot"].null_count == 2_325
    assert objects["class_id"].null_count == 0


def test_snpcc_from_the_data_folder(data_dir: Path, tmp_path: Path) -> None:
    assert import_snpcc(data_dir / "snpcc", tmp_path) == 21_319
    objects, points = read_parts(tmp_path)
    assert points.num_rows == 2_052_860 - 20
    counts = {
        row["values"]: row["counts"] for row in objects["class_id"].value_counts().to_pylist()
    }
    assert counts == {111: 5_088, 112: 2_801, 113: 13_430}


def test_an_absent_package_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> list[metadata.PackagePath]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "files", absent)
    with pytest.raises(
        ConfigurationError, match=r"snmachine, .* is not installed: run 'make setup'"
    ):
        plasticc_source()


def test_a_package_without_the_set_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "files", lambda _: None)
    with pytest.raises(ConfigurationError, match="installed without PLAsTiCC: run 'make setup'"):
        plasticc_source()
