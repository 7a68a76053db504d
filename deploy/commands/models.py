"""Commands about models: train one, score files with it, evaluate it, promote it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.given import given_settings
from lightcurves.errors import ConfigurationError

if TYPE_CHECKING:
    from deploy.sections import Settings


def train(
    data: Annotated[Path, typer.Option(help="Light-curve folder of objects with known classes.")],
    out: Annotated[Path, typer.Option(help="Folder to write the model to.")],
    target: Annotated[
        Path | None,
        typer.Option(
            help="Light-curve folder of unlabelled objects like those that the model will score."
        ),
    ] = None,
    survey: Annotated[str, typer.Option(help="Survey whose alerts the model is for.")] = "lsst",
) -> None:
    """Train a model: classifier, calibration, prediction sets, novelty."""
    from deploy.terminal import as_json, training_bar
    from deploy.wiring import training_settings
    from lightcurves.folders import read_light_curves
    from lightcurves.surveys import survey_named
    from models import training
    from models.artifact import save_model

    how = replace(training_settings(given_settings()), survey=survey_named(survey).name)
    moments = training.moments_of(read_light_curves(data), how.moments)
    aim = target and training.moments_of(read_light_curves(target), how.moments)
    with training_bar() as progress:
        parts = training.train(moments, how, progress, target=aim)
    manifest = save_model(parts, out)
    typer.echo(as_json({"model_version": manifest.model_version, **manifest.metrics}))


def predict(
    model: Annotated[str, typer.Option(help="Model folder, version or alias.")],
    data: Annotated[Path, typer.Option(help="Light-curve folder to score.")],
    out: Annotated[Path, typer.Option(help="Parquet file to write.")],
    moments: Annotated[
        bool,
        typer.Option(
            "--moments", help="Also score each object as it was at several earlier times."
        ),
    ] = False,
) -> None:
    """Score a light-curve folder: probabilities, prediction set and novelty, or the reason for none."""
    import pyarrow.parquet as pq

    from deploy.places import find_model
    from lightcurves.folders import read_light_curves
    from models.scoring import load_model
    from models.training import moments_of

    loaded = load_model(find_model(given_settings(), model))
    table = read_light_curves(data)
    if moments:
        table = moments_of(table)
    scores = loaded.score(table)
    if not moments:  # 'noctule evaluate' groups moments by this column
        scores = scores.drop_columns(["days_since_first_detection"])
    out.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(scores, out)
    typer.echo(f"{scores.num_rows} rows in {out}")


def evaluate(
    scores: Annotated[Path, typer.Option(help="File written by `noctule predict`.")],
    data: Annotated[Path, typer.Option(help="Light-curve folder with the true classes.")],
) -> None:
    """Compare scores with the truth; print log-loss, macro F1, calibration, coverage, novelty as JSON."""
    from deploy.terminal import as_json

    typer.echo(as_json(_figures(scores, data)))


def _figures(scores: Path, data: Path) -> dict[str, Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from lightcurves.folders import OBJECTS_FILE, OBJECTS_SCHEMA
    from models import evaluation

    for path in (scores, data / OBJECTS_FILE):
        if not path.is_file():
            raise ConfigurationError(f"{path} is missing")
    try:
        objects = pq.read_table(data / OBJECTS_FILE).select(["object_id", "class_id"])
        fields = [OBJECTS_SCHEMA.field(name) for name in objects.column_names]
        return evaluation.evaluate(pq.read_table(scores), objects.cast(pa.schema(fields)))
    except (pa.ArrowException, KeyError) as error:
        raise ConfigurationError(
            f"{scores} was not written by 'noctule predict', or {data} has no classes: {error}"
        ) from error


def promote(
    model: Annotated[
        str | None, typer.Argument(help="Folder, version or alias of the model.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why; stored with the promotion.")] = "by hand",
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Go back to the previous champion.")
    ] = False,
    survey: Annotated[str, typer.Option(help="Survey whose alerts the model scores.")] = "lsst",
) -> None:
    """Make a model the champion of a survey: the stream uses it from its next batch on."""
    from active_learning.which_model import alias_of
    from lightcurves.surveys import survey_named

    if rollback == (model is not None):
        raise ConfigurationError("promote takes a model, or --rollback")
    settings = given_settings()
    alias = alias_of(settings.models.alias, survey_named(survey).name)
    if model is None:
        version = _roll_back(settings, alias)
    else:
        version = _promote(settings, model, survey, alias, reason)
    typer.echo(f"{alias} is {version}")


def _promote(settings: Settings, model: str, survey: str, alias: str, reason: str) -> str:
    """Let the alias name a model, after copying it to the models folder if needed; return its version."""
    from active_learning.learner import register
    from active_learning.which_model import refuse_other_survey
    from deploy.places import find_model, open_store
    from models.artifact import read_manifest
    from store import registry
    from store.clock import now_ms

    artifact = find_model(settings, model)
    manifest = read_manifest(artifact)
    refuse_other_survey(manifest, survey)
    version = manifest.model_version
    folder = settings.models.folder / version
    if not folder.exists():
        draft = folder.with_name(f".{version}")
        shutil.copytree(artifact, draft, dirs_exist_ok=True)
        draft.rename(folder)
    with open_store(settings).begin() as connection:
        register(connection, manifest, folder)
        registry.promote(connection, alias, version, reason=reason, now_ms=now_ms())
    return version


def _roll_back(settings: Settings, alias: str) -> str:
    """Let the alias name the model before the present one; return its version."""
    from deploy.places import open_store
    from store import registry
    from store.clock import now_ms

    with open_store(settings).begin() as connection:
        return registry.rollback(connection, alias, now_ms=now_ms())
