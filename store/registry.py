"""The registered models, which one an alias such as ``champion`` stands for, and the history of that.

Promotions are only added, never changed; an alias stands for the model of its newest promotion. A rollback
is a promotion too: of the previous model, with a note of which promotion it undoes, so that the
next rollback goes one step further back and not forward again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from lightcurves.errors import ConfigurationError
from store.tables import models, promotions, trials
from store.upsert import insert_missing

if TYPE_CHECKING:
    from pathlib import Path

    from models.artifact import Manifest

Json = Mapping[str, Any]


def register_model(
    connection: sa.Connection, manifest: Manifest, folder: Path, *, now_ms: int
) -> None:
    """Register a saved model; a version that is registered already stays as it is.

    Parameters
    ----------
    connection
        A transaction that may write.
    manifest
        The model's manifest.
    folder
        Where it is saved.
    now_ms
        Time of the registration, milliseconds since 1970 UTC.
    """
    row = {
        "model_version": manifest.model_version,
        "created_ms": now_ms,
        "path": str(folder),
        "feature_digest": manifest.feature_digest,
        "training_digest": manifest.training["digest"],
        "n_training_objects": manifest.training["n_objects"],
        "class_ids": list(manifest.class_ids),
        "metrics": manifest.metrics,
    }
    insert_missing(connection, models, [row], ["model_version"])


def list_models(connection: sa.Connection) -> Sequence[sa.RowMapping]:
    """Every model version, the newest first."""
    query = sa.select(models).order_by(models.c.created_ms.desc(), models.c.model_version)
    return connection.execute(query).mappings().all()


def champion(connection: sa.Connection, alias: str = "champion") -> sa.RowMapping | None:
    """The model that the alias stands for: its row of ``models``, with promoted_ms and reason.

    None if nothing was promoted yet.
    """
    query = (
        sa.select(models, promotions.c.promoted_ms, promotions.c.reason)
        .join_from(promotions, models)
        .where(promotions.c.alias == alias)
        .order_by(promotions.c.promotion_id.desc())
        .limit(1)
    )
    return connection.execute(query).mappings().first()


def promote(
    connection: sa.Connection,
    alias: str,
    model_version: str,
    *,
    reason: str,
    now_ms: int,
    gate: Json | None = None,
) -> None:
    """Let the alias stand for this version from now on; nothing happens if it already does.

    Parameters
    ----------
    connection
        A transaction that may write.
    alias
        The alias.
    model_version
        The version that it will stand for.
    reason
        Why, for people.
    now_ms
        Time of the promotion, milliseconds since 1970 UTC.
    gate
        The comparison that was won, if there was one.

    Raises
    ------
    ConfigurationError
        No such version is registered.
    """
    _one_at_a_time(connection)
    _refuse_unknown(connection, model_version)
    previous = _version(connection, alias)
    if previous != model_version:
        _append(
            connection,
            alias=alias,
            model_version=model_version,
            previous_version=previous,
            promoted_ms=now_ms,
            reason=reason,
            gate=gate,
        )


def rollback(connection: sa.Connection, alias: str, *, now_ms: int) -> str:
    """Let the alias stand for the version before the present one; returns that version.

    Raises
    ------
    ConfigurationError
        There is no version before the present one.
    """
    _one_at_a_time(connection)
    standing = _standing(connection, alias)
    if len(standing) < 2:  # noqa: PLR2004 - the present one and the one before it
        raise ConfigurationError(
            f"nothing to roll back: {alias!r} has stood for no other model before"
        )
    present, before = standing
    _append(
        connection,
        alias=alias,
        model_version=before.model_version,
        previous_version=present.model_version,
        promoted_ms=now_ms,
        reason=f"rolled back from {present.model_version}",
        undoes=present.promotion_id,
    )
    return str(before.model_version)


def promotion_history(connection: sa.Connection, alias: str) -> Sequence[sa.RowMapping]:
    """Every promotion and rollback of an alias, the newest first."""
    query = sa.select(promotions).where(promotions.c.alias == alias)
    return connection.execute(query.order_by(promotions.c.promotion_id.desc())).mappings().all()


def record_trial(
    connection: sa.Connection,
    *,
    champion_version: str,
    challenger_version: str,
    n_labels: int,
    promoted: bool,
    gate: Json,
    now_ms: int,
) -> int:
    """Record a comparison of a challenger with the champion, won or lost; returns its id.

    Parameters
    ----------
    connection
        A transaction that may write.
    champion_version, challenger_version
        The two models.
    n_labels
        How many labels there were when the challenger was trained.
    promoted
        Whether it became champion.
    gate
        The figures that decided.
    now_ms
        Time of the comparison, milliseconds since 1970 UTC.
    """
    row = trials.insert().values(
        champion_version=champion_version,
        challenger_version=challenger_version,
        tried_ms=now_ms,
        n_labels=n_labels,
        promoted=promoted,
        gate=dict(gate),
    )
    trial_id: int = connection.execute(row.returning(trials.c.trial_id)).scalar_one()
    return trial_id


def trial_history(connection: sa.Connection, limit: int = 100) -> Sequence[sa.RowMapping]:
    """The newest comparisons of champion and challenger, the newest first."""
    query = sa.select(trials).order_by(trials.c.trial_id.desc()).limit(limit)
    return connection.execute(query).mappings().all()


def _one_at_a_time(connection: sa.Connection) -> None:
    """Block other promotions until the end of the transaction; SQLite does so from its start."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("LOCK TABLE promotions IN SHARE ROW EXCLUSIVE MODE"))


def _refuse_unknown(connection: sa.Connection, model_version: str) -> None:
    known = connection.scalars(sa.select(models.c.model_version)).all()
    if model_version not in known:
        there = ", ".join(sorted(known)) or "none"
        raise ConfigurationError(
            f"no model {model_version!r} is registered; registered are: {there}"
        )


def _version(connection: sa.Connection, alias: str) -> str | None:
    row = champion(connection, alias)
    return None if row is None else str(row["model_version"])


def _standing(connection: sa.Connection, alias: str) -> Sequence[sa.Row[Any]]:
    """The two newest promotions that no rollback has undone."""
    undone = sa.select(promotions.c.undoes).where(promotions.c.undoes.is_not(None))
    query = (
        sa.select(promotions)
        .where(promotions.c.alias == alias, promotions.c.undoes.is_(None))
        .where(promotions.c.promotion_id.not_in(undone))
        .order_by(promotions.c.promotion_id.desc())
        .limit(2)
    )
    return connection.execute(query).all()


def _append(connection: sa.Connection, **row: object) -> None:
    connection.execute(promotions.insert().values(**row))
