from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightcurves.errors import ConfigurationError
from lightcurves.folders import read_light_curves, read_parts, write_light_curves
from lightcurves.imports import import_plasticc
from simulator.split import Fractions, Split, split_objects
from simulator.telescope import read_truth
from tests.simulator.skies import CLASSES, LAW, sky, write_sky

WITHHELD = (121, 132)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sky(tmp_path_factory.mktemp("sky"), n_objects=300)


def classes_in(folder: Path) -> dict[int, int | None]:
    objects, _ = read_parts(folder)
    pairs = zip(objects["object_id"].to_pylist(), objects["class_id"].to_pylist(), strict=True)
    return dict(pairs)


def parts_of(split: Split) -> list[dict[int, int | None]]:
    return [classes_in(folder) for folder in (split.train, split.frozen, split.stream)]


def test_every_object_is_in_one_part(source: Path, tmp_path: Path) -> None:
    parts = parts_of(split_objects(source, tmp_path, seed=1, withheld_classes=WITHHELD))
    assert all(not (a.keys() & b.keys()) for a, b in combinations(parts, 2))
    assert set().union(*parts) == classes_in(source).keys()


def test_measurements_go_with_their_object(source: Path, tmp_path: Path) -> None:
    split = split_objects(source, tmp_path, seed=1, withheld_classes=WITHHELD)
    whole = read_light_curves(source)
    curves = dict(
        zip(whole["object_id"].to_pylist(), whole["light_curve"].to_pylist(), strict=True)
    )
    for folder in (split.train, split.frozen, split.stream):
        part = read_light_curves(folder)
        for object_id, curve in zip(
            part["object_id"].to_pylist(), part["light_curve"].to_pylist(), strict=True
        ):
            assert curve == curves[object_id]


def test_withheld_classes_are_never_trained_on_but_judged_and_streamed(
    source: Path, tmp_path: Path
) -> None:
    split = split_objects(source, tmp_path, seed=1, withheld_classes=WITHHELD)
    train, frozen = classes_in(split.train), classes_in(split.frozen)
    truth = read_truth(split.truth)
    assert set(train.values()) == set(CLASSES) - set(WITHHELD)
    assert set(frozen.values()) == set(truth.values()) == set(CLASSES)


def test_each_class_is_split_by_the_fractions(source: Path, tmp_path: Path) -> None:
    fractions = Fractions(train=0.5, frozen=0.2, stream=0.3)
    split = split_objects(source, tmp_path, seed=1, withheld_classes=WITHHELD, fractions=fractions)
    train, frozen, _ = (list(part.values()) for part in parts_of(split))
    whole = list(classes_in(source).values())
    for class_id in CLASSES:
        n = whole.count(class_id)
        expected = 0.0 if class_id in WITHHELD else 0.5 * n
        assert train.count(class_id) == pytest.approx(expected, abs=0.5)
        assert frozen.count(class_id) == pytest.approx(0.2 * n, abs=1.0)


def test_the_stream_has_no_labels_and_the_truth_lies_outside_it(
    source: Path, tmp_path: Path
) -> None:
    split = split_objects(source, tmp_path, seed=1, withheld_classes=WITHHELD)
    streamed = classes_in(split.stream)
    assert set(streamed.values()) == {None}
    whole = classes_in(source)
    assert read_truth(split.truth) == {object_id: whole[object_id] for object_id in streamed}
    assert pq.read_schema(split.truth).names == ["object_id", "class_id"]
    assert sorted(file.name for file in split.stream.iterdir()) == [
        "light_curves.parquet",
        "objects.parquet",
    ]


def test_objects_without_a_class_are_streamed(tmp_path: Path) -> None:
    objects, points = sky(n_objects=20)
    column = objects.schema.get_field_index("class_id")
    unlabelled = objects.set_column(column, "class_id", pa.nulls(20, pa.int32()))
    write_light_curves(tmp_path / "sky", unlabelled, points)
    split = split_objects(tmp_path / "sky", tmp_path / "out", seed=1, withheld_classes=())
    assert [len(part) for part in parts_of(split)] == [0, 0, 20]
    assert read_truth(split.truth) == {}


def modified(folder: Path) -> dict[str, int]:
    return {str(file): file.stat().st_mtime_ns for file in folder.rglob("*.parquet")}


def test_a_second_call_writes_nothing(source: Path, tmp_path: Path) -> None:
    split_objects(source, tmp_path, seed=1, withheld_classes=WITHHELD)
    before = modified(tmp_path)
    split_objects(source, tmp_path, seed=1, withheld_classes=reversed(WITHHELD))
    assert modified(tmp_path) == before


@pytest.mark.parametrize("lost", ["split.json", "truth.parquet", "train/objects.parquet"])
def test_what_is_lost_is_made_again(source: Path, tmp_path: Path, lost: str) -> None:
    split = split_objects(source, tmp_path, seed=1, withheld_classes=WITHHELD)
    before = parts_of(split)
    (tmp_path / lost).unlink()
    split_objects(source, tmp_path, seed=1, withheld_classes=WITHHELD)
    assert (tmp_path / lost).is_file()
    assert parts_of(split) == before


def test_other_arguments_or_another_sky_give_another_split(source: Path, tmp_path: Path) -> None:
    first = parts_of(split_objects(source, tmp_path, seed=1, withheld_classes=WITHHELD))
    second = parts_of(split_objects(source, tmp_path, seed=2, withheld_classes=WITHHELD))
    assert first != second
    other = write_sky(tmp_path / "sky", seed=9, n_objects=30)
    assert (
        sum(map(len, parts_of(split_objects(other, tmp_path, seed=2, withheld_classes=())))) == 30
    )


@settings(LAW, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(tmp_path: Path, random: np.random.Generator) -> None:
    objects, points = sky(n_objects=30)
    order = list(range(30))
    random.shuffle(order)
    parts = []
    for name, table in (("a", objects), ("b", objects.take(order))):
        write_light_curves(tmp_path / name, table, points)
        split = split_objects(
            tmp_path / name, tmp_path / f"{name}-out", seed=1, withheld_classes=()
        )
        parts.append(parts_of(split))
    assert parts[0] == parts[1]


@pytest.mark.parametrize("fractions", [(0.5, 0.5, 0.5), (1.5, -0.5, 0.0)])
def test_fractions_have_to_be_shares(
    source: Path, tmp_path: Path, fractions: tuple[float, float, float]
) -> None:
    with pytest.raises(ConfigurationError, match="must add up to 1"):
        split_objects(
            source, tmp_path, seed=1, withheld_classes=(), fractions=Fractions(*fractions)
        )


def test_no_light_curve_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"objects\.parquet is missing"):
        split_objects(tmp_path, tmp_path / "out", seed=1, withheld_classes=())


def test_plasticc_is_split(data_dir: Path, tmp_path: Path) -> None:
    import_plasticc(data_dir / "plasticc", tmp_path / "sky")
    split = split_objects(tmp_path / "sky", tmp_path, seed=20260310, withheld_classes=WITHHELD)
    train, frozen, stream = parts_of(split)
    assert len(train) + len(frozen) + len(stream) == 7848
    assert len(train) == pytest.approx(0.25 * (7848 - 102 - 495), abs=7)
    assert len(frozen) == pytest.approx(0.15 * 7848, abs=7)
