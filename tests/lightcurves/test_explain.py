"""The plan in words says what the decoder does."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightcurves.errors import ConfigurationError
from lightcurves.explain import explain
from lightcurves.plan import compile_plan
from lightcurves.schemas import package_schemas, schema_in
from lightcurves.surveys import LSST


@pytest.mark.parametrize("schema_id", [500, 704, 1000, 1101])
def test_every_field_is_read_missing_or_counted(schema_id: int) -> None:
    schema = package_schemas().schema(schema_id)
    plan = compile_plan(schema, LSST)
    text = explain(schema, LSST)
    _, read, *missing, skipped = text.split("\n\n")
    paths = [line.split()[0] for line in read.splitlines()[1:]]
    assert paths == list(plan.stored)
    gone = [line.split()[0] for part in missing for line in part.splitlines()[1:]]
    assert gone == list(plan.missing)
    assert set(paths) | set(gone) == set(LSST.paths())
    counts = [int(line.split(": ")[1].split()[0]) for line in skipped.splitlines()[1:]]
    assert sum(counts) == len(set(plan.skipped))


def test_a_schema_that_is_refused_says_why() -> None:
    with pytest.raises(ConfigurationError, match=r"v3_0.* lacks the required .*diaSource\.band"):
        explain(package_schemas().schema(300), LSST)


def test_a_schema_comes_from_its_own_file_or_a_container(real_file: Path, tmp_path: Path) -> None:
    folder = package_schemas().folder
    own = schema_in(folder / "10" / "0" / "lsst.v10_0.alert.avsc")
    assert explain(own, LSST) == explain(schema_in(real_file), LSST)
    with pytest.raises(ConfigurationError, match="no schema file at"):
        schema_in(tmp_path / "nowhere.avsc")
    for number, content in enumerate((b"", b"no schema", b"Obj\x01 and no more", b'"string"')):
        file = tmp_path / f"{number}.avsc"
        file.write_bytes(content)
        with pytest.raises(ConfigurationError, match=r"contains no Avro schema|must be a record"):
            schema_in(file)
