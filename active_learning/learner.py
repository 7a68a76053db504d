"""The learner: read the labels that came back, train, compare, promote; all of it is recorded in tables."""

from __future__ import annotations

import logging
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from active_learning.gate import Gate, compare
from lightcurves.errors import ConfigurationError
from lightcurves.folders import read_light_curves, read_parts
from models.artifact import Manifest, save_model
from models.rows import TrainingSettings
from models.scoring import load_model
from models.training import as_in_packets, moments_of, moments_of_alerts, train
from store import registry, tables
from store.clock import now_ms
from store.database import reading
from store.delta import read_alerts_of
from store.request_queries import current_labels

if TYPE_CHECKING:
    from collections.abc import Callable

    from models.artifact import Trained
    from store.keys import Key

LOG: Final = logging.getLogger("noctule.learner")


@dataclass(frozen=True)
class LearnerConfig:
    """All that the learner depends on, as plain values.

    Attributes
    ----------
    models_folder, delta_folder
        Folders of artifacts and of scored light curves.
    training_folder
        Light-curve folder that every training includes; None: train on labelled alerts only.
    frozen_folder
        Light-curve folder of labelled objects that no training ever sees.
    alias
        The alias that is promoted ("champion").
    retrain_every
        Train once there are at least this many new labels.
    confidence
        Confidence of the gate's interval.
    training
        See :class:`models.training.TrainingSettings`.
    """

    models_folder: Path
    delta_folder: Path
    training_folder: Path | None
    frozen_folder: Path | None
    alias: str
    retrain_every: int
    confidence: float
    training: TrainingSettings


@dataclass(frozen=True)
class Trial:
    """The result of one training."""

    challenger: str
    n_labels: int
    gate: Gate
    promoted: bool


class Listener:
    """Receives the learner's events, in this order; this one ignores them."""

    def looked(self, n_new: int) -> None:
        """The learner looked: `n_new` objects have been labelled since the latest trial."""

    def training(self) -> None:
        """The learner begins to train."""

    def tried(self, trial: Trial, seconds: float) -> None:
        """The learner has trained and compared; both together took `seconds`."""

    def failed(self, seconds: float) -> None:
        """Training or comparing failed after `seconds`; no trial is recorded."""


DEAF: Final = Listener()


def learn_once(
    engine: sa.Engine,
    config: LearnerConfig,
    *,
    force: bool = False,
    progress: Callable[[str, float], None] | None = None,
    listener: Listener = DEAF,
) -> Trial | None:
    """Retrain if enough labels came in since the last trial; promote if the challenger passes the gate.

    Steps: read labels of the survey that the model is for, and their alerts; train on these and the
    training folder; save the artifact; compare with the champion on the frozen set; in one transaction
    write model, trial and, if it passed, promotion. A crash before the last step leaves at most an
    unregistered artifact.

    Returns
    -------
    Trial or None
        None if there were too few new labels.

    Raises
    ------
    ConfigurationError
        There is no champion, or no frozen set to compare on.
    """
    with reading(engine) as connection:
        champion = registry.champion(connection, config.alias)
        labels = current_labels(connection)
        n_seen = last_trial_labels(connection)
    if champion is None:
        raise ConfigurationError(
            f"no model is promoted as '{config.alias}': train and promote one first"
        )
    if config.frozen_folder is None:
        raise ConfigurationError(
            "learning.frozen_folder is not set: without a frozen set nothing can be proven"
        )
    current = {key: label for key, label in labels.items() if key[0] == config.training.survey}
    n_seen = min(
        n_seen, len(current)
    )  # earlier releases counted the labels of all surveys together
    listener.looked(len(current) - n_seen)
    if len(current) - n_seen < config.retrain_every and not force:
        return None
    listener.training()
    begun = time.monotonic()
    try:
        parts = train(training_moments(config, current), config.training, progress)
        trial = try_challenger(engine, config, parts, str(champion["model_version"]), len(current))
    except Exception:
        listener.failed(time.monotonic() - begun)
        raise
    listener.tried(trial, time.monotonic() - begun)
    return trial


def last_trial_labels(connection: sa.Connection) -> int:
    """Return how many labels the latest trial used."""
    trials = tables.trials.c
    query = sa.select(trials.n_labels).order_by(trials.trial_id.desc()).limit(1)
    return int(connection.execute(query).scalar() or 0)


def training_moments(config: LearnerConfig, current: dict[Key, int]) -> pa.Table:
    """Return the training folder's moments and the alerts of labelled objects.

    An object of the frozen set is always left out: a label may name one, and a model that has
    seen it proves nothing on it.
    """
    pieces = []
    if config.training_folder is not None:
        folder = read_light_curves(config.training_folder)
        pieces.append(moments_of(folder, config.training.moments))
    for survey in sorted({survey for survey, _ in current}):
        wanted = [key for key in current if key[0] == survey]
        alerts = read_alerts_of(config.delta_folder, wanted)
        if alerts.num_rows:
            ids = alerts["object_id"].to_pylist()
            classes = pa.array([current[survey, number] for number in ids], pa.int32())
            alerts = alerts.append_column("class_id", classes)
            pieces.append(moments_of_alerts(alerts, config.training.moments))
    if not pieces:
        raise ConfigurationError(
            "nothing to train on: set learning.training_folder, or wait for labels"
        )
    moments = pa.concat_tables(pieces)
    if config.frozen_folder is not None:
        frozen = read_parts(config.frozen_folder)[0]["object_id"].combine_chunks()
        moments = moments.filter(pc.invert(pc.is_in(moments["object_id"], value_set=frozen)))
    return moments


def try_challenger(
    engine: sa.Engine, config: LearnerConfig, parts: Trained, champion: str, n_labels: int
) -> Trial:
    """Save `parts`, compare with `champion`, register, and promote if the gate is passed."""
    manifest, folder = store_artifact(parts, config.models_folder)
    assert config.frozen_folder is not None  # noqa: S101 - learn_once has checked
    # Judged on what the stream will give it: no host redshift, no extinction.
    folder_table = as_in_packets(read_light_curves(config.frozen_folder))
    frozen = moments_of(folder_table, config.training.moments)
    gate = compare(
        load_model(config.models_folder / champion),
        load_model(folder),
        frozen,
        confidence=config.confidence,
        seed=config.training.seed,
    )
    with engine.begin() as connection:
        current = registry.champion(connection, config.alias)
        overtaken = current is None or current["model_version"] != champion
        promoted = gate.passed and not overtaken  # somebody promoted or rolled back meanwhile
        register(connection, manifest, folder)
        registry.record_trial(
            connection,
            champion_version=champion,
            challenger_version=manifest.model_version,
            n_labels=n_labels,
            promoted=promoted,
            gate=gate.as_dict(),
            now_ms=now_ms(),
        )
        if promoted:
            reason = f"gate passed with {n_labels} labels: log-loss {gate.gain:+.3f} better"
            registry.promote(
                connection,
                config.alias,
                manifest.model_version,
                reason=reason,
                gate=gate.as_dict(),
                now_ms=now_ms(),
            )
    LOG.info("challenger %s with %d labels: %s", manifest.model_version, n_labels, gate)
    return Trial(manifest.model_version, n_labels, gate, promoted)


def store_artifact(parts: Trained, models_folder: Path) -> tuple[Manifest, Path]:
    """Save `parts` in `models_folder`, in a folder named after the model's version."""
    models_folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=models_folder, prefix=".draft-") as name:
        draft = Path(name) / "model"
        manifest = save_model(parts, draft)
        folder = models_folder / manifest.model_version
        if not folder.exists():
            draft.rename(folder)
    return manifest, folder


def register(connection: sa.Connection, manifest: Manifest, folder: Path) -> None:
    """Write a saved artifact into the table of models."""
    registry.register_model(connection, manifest, folder, now_ms=now_ms())


def learn_forever(
    engine: sa.Engine, config: LearnerConfig, *, poll_s: float, listener: Listener = DEAF
) -> NoReturn:
    """Look for new labels every `poll_s` seconds, until the process ends."""
    while True:
        if learn_once(engine, config, listener=listener) is None:
            time.sleep(poll_s)
