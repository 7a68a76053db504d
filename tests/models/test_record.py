"""The record of a score is declared once, and shows in every place that it is made for."""

from __future__ import annotations

import json
from pathlib import Path

import astropy.units as u  # type: ignore[import-untyped]
import pytest
from astropy.io.votable.ucd import check_ucd  # type: ignore[import-untyped]

from models import record
from models.record import RECORD, ROW_FIELDS, SCORE_FIELDS, Field, Group, Null
from models.scoring import load_model
from portal import shapes
from store.tables import classifications
from stream.messages import CLASSIFICATION
from stream.rows import ROWS_SCHEMA
from stream.scoring import delta_schema
from tests.sky import sky_table

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_made_from_the_declaration() -> None:
    assert (DOCS / "record.md").read_text() == record.page() + "\n"


@pytest.mark.parametrize("field", RECORD, ids=lambda field: field.name)
def test_every_field_is_described_in_the_fields_terms(field: Field) -> None:
    assert check_ucd(field.ucd, check_controlled_vocabulary=True, has_colon=False)
    u.Unit(field.unit, format="vounit")
    assert field.meaning.endswith(".")
    assert (field.name.endswith("_njy")) == (field.unit == "nJy")
    assert (field.name.endswith("_ms")) == (field.unit == "ms")


@pytest.mark.parametrize("field", RECORD, ids=lambda field: field.name)
def test_every_field_is_in_every_place(field: Field) -> None:
    never = field.null is Null.NEVER
    column = classifications.c[field.name]
    assert column.nullable is not never
    in_avro = {f["name"]: f["type"] for f in json.loads(CLASSIFICATION.text)["fields"]}
    assert isinstance(in_avro[field.name], list) is not never
    assert delta_schema().field(field.name).type == field.arrow
    if field in ROW_FIELDS:
        assert ROWS_SCHEMA.field(field.name).type == field.arrow
    if field.group is Group.SCORE:
        assert field.name in shapes.Alert.model_fields


def test_a_score_from_python_has_every_field_of_a_score(artifact: Path) -> None:
    """What ``p_<classId>`` does not say already."""
    table = load_model(artifact).score(sky_table(2))
    scored = {field.name for field in SCORE_FIELDS}
    assert scored - set(table.column_names) == {"class_id", "probability", "probabilities"}


def test_fields_are_appended() -> None:
    """The order of version 1.0, which readers of Avro rely on."""
    first = Path(__file__).parents[1] / "stream/data/noctule.v1.Classification.1.0.avsc"
    names = [f["name"] for f in json.loads(first.read_text())["fields"]]
    assert [field.name for field in RECORD][: len(names)] == names
