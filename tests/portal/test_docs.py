"""docs/api.md names everything that the portal promises."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy as sa

from portal import shapes
from portal.errors import ErrorCode
from tests.portal import night
from tests.portal.conftest import asking, make_app

TEXT = (Path(__file__).parents[2] / "docs" / "api.md").read_text()


def openapi(sqlite: sa.Engine) -> dict[str, Any]:
    return dict(make_app(sqlite).openapi())


def test_every_endpoint_is_documented_and_no_other(sqlite: sa.Engine) -> None:
    served = {
        f"{method.upper()} {path}"
        for path, methods in openapi(sqlite)["paths"].items()
        for method in methods
    }
    assert set(re.findall(r"^### `(.+)`$", TEXT, re.MULTILINE)) == served


def test_every_parameter_and_field_is_documented(sqlite: sa.Engine) -> None:
    names = set(shapes.LabelReport.model_fields) | set(shapes.ObjectSummary.model_fields)
    names |= set(shapes.LabelRequest.model_fields) | set(shapes.ObjectDetail.model_fields)
    names |= set(shapes.Models.model_fields) | set(shapes.Status.model_fields)
    for methods in openapi(sqlite)["paths"].values():
        for operation in methods.values():
            names |= {each["name"] for each in operation.get("parameters", [])}
    missing = {name for name in names - {"authorization"} if f"`{name}" not in TEXT}
    assert missing == set()


def test_every_error_code_is_documented() -> None:
    assert set(re.findall(r"^\| `(\w+)` \| (?:\d{3}|other) \|", TEXT, re.MULTILINE)) == set(
        ErrorCode
    )


def test_every_metric_is_documented(sqlite: sa.Engine) -> None:
    night.fill(sqlite, n_objects=1)
    with asking(make_app(sqlite)) as portal:
        found = set(re.findall(r"^(noctule_\w+)", portal.get("/metrics").text, re.MULTILINE))
    assert found == set(re.findall(r"^\| `(noctule_\w+)`", TEXT, re.MULTILINE))


def test_every_identifier_is_a_text_and_known_to_the_client() -> None:
    ids = set()
    for shape in vars(shapes).values():
        if isinstance(shape, type) and issubclass(shape, shapes.Shape):
            schema = shape.model_json_schema(mode="serialization")
            ids |= {
                name
                for name, field in schema["properties"].items()
                if shape.model_fields[name].annotation in (int, int | None) and _is_text(field)
            } | _optional_ids(schema)
    assert ids == shapes.ID_FIELDS


def _is_text(field: dict[str, Any]) -> bool:
    return field.get("type") == "string"


def _optional_ids(schema: dict[str, Any]) -> set[str]:
    return {
        name
        for name, field in schema["properties"].items()
        if (name.endswith("_id") or name == "undoes")
        and {"type": "string"} in field.get("anyOf", [])
    }


def test_the_description_loads_nothing_from_elsewhere(sqlite: sa.Engine) -> None:
    with asking(make_app(sqlite)) as portal:
        assert portal.get("/api/openapi.json").status_code == httpx.codes.OK
        assert portal.get("/docs").status_code == httpx.codes.NOT_FOUND
