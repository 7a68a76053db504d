from __future__ import annotations

import threading
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightcurves.errors import ConfigurationError
from store.registry import (
    champion,
    list_models,
    promote,
    promotion_history,
    record_trial,
    register_model,
    rollback,
    trial_history,
)
from tests.manifests import manifest

VERSIONS = ("m1", "m2", "m3")


def register(connection: sa.Connection, *versions: str, path: str = "here") -> None:
    for number, version in enumerate(versions):
        model = manifest(version, (111, 112), {"log_loss": 0.5}, n_objects=3)
        register_model(connection, model, Path(path), now_ms=number)


def name_of(connection: sa.Connection, alias: str = "champion") -> str | None:
    row = champion(connection, alias)
    return None if row is None else str(row["model_version"])


def test_nothing_is_promoted_at_first(connection: sa.Connection) -> None:
    register(connection, "m1")
    assert champion(connection) is None
    with pytest.raises(ConfigurationError, match="nothing to roll back"):
        rollback(connection, "champion", now_ms=1)


def test_registering_twice_is_once(connection: sa.Connection) -> None:
    register(connection, "m1")
    register(connection, "m1", path="elsewhere")
    (row,) = list_models(connection)
    assert (row["path"], row["class_ids"], row["metrics"]) == (
        "here",
        [111, 112],
        {"log_loss": 0.5},
    )


def test_the_newest_model_comes_first(connection: sa.Connection) -> None:
    register(connection, *VERSIONS)
    assert [row["model_version"] for row in list_models(connection)] == ["m3", "m2", "m1"]


def test_an_unknown_version_is_refused(connection: sa.Connection) -> None:
    register(connection, "m1")
    with pytest.raises(
        ConfigurationError, match=r"no model 'm9' is registered; registered are: m1"
    ):
        promote(connection, "champion", "m9", reason="?", now_ms=1)


def test_aliases_do_not_mix(connection: sa.Connection) -> None:
    register(connection, *VERSIONS)
    promote(connection, "champion", "m1", reason="first", now_ms=1)
    promote(connection, "shadow", "m2", reason="try", now_ms=2)
    assert (name_of(connection), name_of(connection, "shadow")) == ("m1", "m2")


def test_a_promotion_leaves_its_reason(connection: sa.Connection) -> None:
    register(connection, *VERSIONS)
    promote(connection, "champion", "m1", reason="first", now_ms=1)
    promote(connection, "champion", "m2", reason="better", gate={"p": 0.95}, now_ms=2)
    newest, first = promotion_history(connection, "champion")
    assert (newest["previous_version"], newest["reason"], newest["gate"]) == (
        "m1",
        "better",
        {"p": 0.95},
    )
    assert (first["previous_version"], first["gate"]) == (None, None)
    row = champion(connection)
    assert row is not None
    assert (row["path"], row["promoted_ms"], row["reason"]) == ("here", 2, "better")


def test_promoting_the_champion_changes_nothing(connection: sa.Connection) -> None:
    register(connection, "m1")
    for now_ms in (1, 2):
        promote(connection, "champion", "m1", reason="first", now_ms=now_ms)
    assert len(promotion_history(connection, "champion")) == 1


def test_rolling_back_twice_goes_two_steps_back(connection: sa.Connection) -> None:
    register(connection, *VERSIONS)
    for version in VERSIONS:
        promote(connection, "champion", version, reason="better", now_ms=1)
    assert rollback(connection, "champion", now_ms=2) == "m2"
    assert rollback(connection, "champion", now_ms=3) == "m1"
    assert name_of(connection) == "m1"
    with pytest.raises(ConfigurationError, match="nothing to roll back"):
        rollback(connection, "champion", now_ms=4)
    assert len(promotion_history(connection, "champion")) == 5


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.sampled_from([*VERSIONS, "back"]), max_size=12))
def test_promotions_and_rollbacks_are_a_stack(engine: sa.Engine, steps: list[str]) -> None:
    stack: list[str] = []
    with engine.connect() as connection:
        register(connection, *VERSIONS)
        for step in steps:
            if step != "back":
                promote(connection, "champion", step, reason="", now_ms=1)
                stack += [step] if stack[-1:] != [step] else []
            elif len(stack) > 1:
                stack.pop()
                assert rollback(connection, "champion", now_ms=1) == stack[-1]
            assert name_of(connection) == (stack[-1] if stack else None)
        connection.rollback()


def test_promotions_at_once_follow_one_another(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        register(connection, *VERSIONS)

    def run(version: str) -> None:
        with engine.begin() as connection:
            promote(connection, "champion", version, reason="", now_ms=1)

    threads = [threading.Thread(target=run, args=[version]) for version in VERSIONS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with engine.connect() as connection:
        history = promotion_history(connection, "champion")[::-1]
    versions = [row["model_version"] for row in history]
    assert [row["previous_version"] for row in history] == [None, *versions[:-1]]
    assert sorted(versions) == list(VERSIONS)


def test_trials_are_kept_won_or_lost(connection: sa.Connection) -> None:
    for promoted in (False, True):
        record_trial(
            connection,
            champion_version="m1",
            challenger_version="m2",
            n_labels=100,
            promoted=promoted,
            gate={"p": 0.5},
            now_ms=1,
        )
    newest, oldest = trial_history(connection)
    assert (newest["promoted"], oldest["promoted"]) == (True, False)
    assert newest["gate"] == {"p": 0.5}
    assert trial_history(connection, limit=1) == [newest]
