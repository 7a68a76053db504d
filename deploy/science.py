"""Commands that need no broker: import, train, predict, evaluate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from deploy.front import load_model
from lightcurves.errors import ConfigurationError
from lightcurves.folders import OBJECTS_FILE, OBJECTS_SCHEMA, read_light_curves
from lightcurves.imports import import_plasticc, import_snpcc
from models.artifact import Manifest, Trained, save_model
from models.evaluation import evaluate
from models.scoring import scores_table
from models.training import TrainingSettings, moments_of, train

if TYPE_CHECKING:
    from collections.abc import Callable

SURVEYS: Final[dict[str, Callable[[Path, Path], int]]] = {
    "plasticc": import_plasticc,
    "snpcc": import_snpcc,
}
_CONSOLE: Final = Console(stderr=True)


def run_import(survey: str, source: Path, folder: Path) -> int:
    """Write a light-curve folder from a challenge's own files; return the number of objects."""
    if survey not in SURVEYS:
        raise ConfigurationError(f"no import for {survey!r}: choose one of {', '.join(SURVEYS)}")
    return SURVEYS[survey](source, folder)


def run_train(data: Path, target: Path | None, out: Path, settings: TrainingSettings) -> Manifest:
    """Train on a light-curve folder and save the artifact `out`, with progress on the terminal."""
    moments = moments_of(read_light_curves(data), settings.moments)
    aim = None if target is None else moments_of(read_light_curves(target), settings.moments)
    return save_model(train_with_progress(moments, settings, aim), out)


def train_with_progress(
    moments: pa.Table, settings: TrainingSettings, target: pa.Table | None = None
) -> Trained:
    """Train, showing on the terminal what is being done."""
    columns = (TextColumn("[bold]training[/] {task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=_CONSOLE) as bar:
        task = bar.add_task("reading", total=1.0)
        parts = train(
            moments,
            settings,
            lambda what, done: bar.update(task, description=what, completed=done),
            target=target,
        )
        bar.update(task, description="done", completed=1.0)
    return parts


def run_predict(model: str, data: Path, out: Path, *, moments: bool) -> int:
    """Score a light-curve folder into a Parquet file; return the number of rows.

    With `moments`, each object has a row at several moments of its life, with
    ``days_since_first_detection``, and one for its whole light curve.
    """
    loaded = load_model(model)
    table = read_light_curves(data)
    if moments:
        table = moments_of(table)
    arrays = loaded.score_arrays(table)
    scores = scores_table(loaded, arrays)
    if moments:
        age = "days_since_first_detection"
        scores = scores.append_column(age, pa.array(arrays.reals[age]))
    out.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(scores, out)
    return int(scores.num_rows)


def run_evaluate(scores: Path, data: Path) -> dict[str, Any]:
    """Compare a file of scores with the true classes of a light-curve folder."""
    for path in (scores, data / OBJECTS_FILE):
        if not path.is_file():
            raise ConfigurationError(f"{path} is missing")
    try:
        objects = pq.read_table(data / OBJECTS_FILE).select(["object_id", "class_id"])
        fields = [OBJECTS_SCHEMA.field(name) for name in objects.column_names]
        return evaluate(pq.read_table(scores), objects.cast(pa.schema(fields)))
    except (pa.ArrowException, KeyError) as error:
        raise ConfigurationError(
            f"{scores} is no file of 'noctule predict', or {data} has no classes: {error}"
        ) from error


def as_json(result: dict[str, Any]) -> str:
    """Return `result` as JSON; a figure that could not be computed is null."""
    return json.dumps(_without_nan(result), indent=2)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and value != value else value  # noqa: PLR0124 - NaN
