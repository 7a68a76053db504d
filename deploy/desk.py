"""Commands of the label desk, the models and the schemas: queue, label, promote, explain."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from active_learning.learner import register
from deploy.wiring import open_store, scorer_config
from lightcurves.errors import ConfigurationError
from lightcurves.explain import explain
from lightcurves.schemas import Schema, schema_in
from lightcurves.surveys import LSST, survey_of
from lightcurves.taxonomy import CLASS_NAMES, class_name
from models.artifact import MANIFEST_FILE, read_manifest
from store import labels, registry, requests
from store.clock import now_ms
from store.database import reading
from store.object_queries import surveys_of
from store.request_queries import label_queue

if TYPE_CHECKING:
    import sqlalchemy as sa

    from deploy.sections import Settings


def queue_table(settings: Settings, *, every: bool, limit: int) -> Table:
    """Return the label queue for the terminal."""
    with reading(open_store(settings, settings.store.query_timeout_s)) as connection:
        rows = label_queue(connection, only_open=not every, limit=limit)
    table = Table(title="spectra wanted" if rows else "no spectra wanted")
    for name in (
        "request",
        "survey",
        "object",
        "program",
        "night",
        "ra",
        "dec",
        "band",
        "flux nJy",
        "utility",
        "why",
        "state",
        "answer",
    ):
        table.add_column(name)
    for row in rows:
        table.add_row(*_queue_cells(row))
    return table


def _queue_cells(row: sa.RowMapping) -> tuple[str, ...]:
    position = (f"{row['ra_deg']:.5f}", f"{row['dec_deg']:+.5f}")
    answer = class_name(row["answer"]) if row["answered"] else ""
    flux = "" if row["flux_njy"] is None else f"{row['flux_njy']:.0f}"
    names = ("request_id", "survey", "object_id", "program", "night")
    how_far = f"{row['state']} by {row['state_who']}"
    useful = (row["band"] or "", flux, f"{row['utility']:.2f}", row["why"])
    return (*(str(row[name]) for name in names), *position, *useful, how_far, answer)


def report(
    settings: Settings,
    object_id: int,
    label: str,
    reporter: str,
    confidence: float | None,
    comment: str | None,
    survey: str | None = None,
) -> int:
    """Write a label into the ledger; return its number.

    Raises
    ------
    ConfigurationError
        No such class, or no survey is given where several have an object of this id.
    """
    with open_store(settings).begin() as connection:
        known = surveys_of(connection, object_id)
        if survey is None and len(known) > 1:
            raise ConfigurationError(
                f"several surveys have an object {object_id}: add --survey, one of {', '.join(known)}"
            )
        return labels.report_label(
            connection,
            survey=survey or (known[0] if known else LSST.name),
            object_id=object_id,
            class_id=class_id_of(label),
            reporter=reporter,
            confidence=confidence,
            comment=comment,
            now_ms=now_ms(),
        )


def report_event(settings: Settings, request_id: int, event: str, who: str, why: str | None) -> int:
    """Write down what became of a request; return the event's number."""
    with open_store(settings).begin() as connection:
        row = requests.append_event(connection, request_id, event, who=who, at_ms=now_ms(), why=why)
    return int(row["event_id"])


def class_id_of(text: str) -> int:
    """Return the classId that `text` is or names.

    Raises
    ------
    ConfigurationError
        The taxonomy has no such class.

    Examples
    --------
    >>> class_id_of("111"), class_id_of("sn ia")
    (111, 111)
    """
    by_name = {name.casefold(): class_id for class_id, name in CLASS_NAMES.items()}
    found = by_name.get(text.casefold(), int(text) if text.isdecimal() else None)
    if found not in CLASS_NAMES:
        known = ", ".join(f"{class_id} {name}" for class_id, name in CLASS_NAMES.items())
        raise ConfigurationError(f"no class {text!r} in the taxonomy: {known}")
    return found


def promote(settings: Settings, model: str, reason: str) -> str:
    """Make a model the champion; return its version.

    `model` is a registered version, or the folder of an artifact, which is then copied into the
    models folder and registered.
    """
    engine = open_store(settings)
    version = model
    with engine.begin() as connection:
        if (Path(model) / MANIFEST_FILE).is_file():
            version = adopt(settings, Path(model))
            folder = settings.models.folder / version
            register(connection, read_manifest(folder), folder)
        read_manifest(settings.models.folder / version)
        registry.promote(connection, settings.models.alias, version, reason=reason, now_ms=now_ms())
    return version


def adopt(settings: Settings, artifact: Path) -> str:
    """Copy an artifact into the models folder under its version; return that."""
    manifest = read_manifest(artifact)
    target = settings.models.folder / manifest.model_version
    if not target.exists():
        draft = target.with_name(f".{target.name}")
        shutil.copytree(artifact, draft, dirs_exist_ok=True)
        draft.rename(target)
    return manifest.model_version


def rollback(settings: Settings) -> str:
    """Go back to the champion before the present one; return its version."""
    with open_store(settings).begin() as connection:
        return registry.rollback(connection, settings.models.alias, now_ms=now_ms())


def explain_schema(settings: Settings, schema: str) -> str:
    """Return the plan of a schema in words; `schema` is an id or a file.

    Raises
    ------
    ConfigurationError
        The settings' schema source does not know the id, the file holds no schema, or the schema
        lacks a field that noctule cannot do without.
    UnavailableError
        The registry does not answer.
    """
    if not schema.isascii() or not schema.isdigit():
        return _explained(schema_in(Path(schema)))
    found = scorer_config(settings).schemas().schema(int(schema))
    if found is None:
        raise ConfigurationError(
            f"no schema has the id {schema}: set schemas.source to where your packets' schemas are"
        )
    return _explained(found)


def _explained(schema: Schema) -> str:
    return explain(schema, survey_of(schema))
