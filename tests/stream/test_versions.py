"""A batch has one model version, chosen when it is planned and kept in the checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lightcurves.errors import ConfigurationError
from store.tables import accounting, classifications
from tests.stream.conftest import Night


def test_a_promotion_takes_effect_at_the_next_batch(
    night: Night, real_packets: list[bytes], trained_models: list[Path]
) -> None:
    old, new = trained_models
    night.publish(real_packets[:8])
    night.run()
    night.promote(new)
    night.publish(real_packets[8:16])
    night.run()
    by_batch = {(row["batch_id"], row["model_version"]) for row in night.rows(accounting)}
    assert by_batch == {(0, old.name), (1, new.name)}
    scored_by = {row["batch_id"]: row["model_version"] for row in night.rows(classifications)}
    assert scored_by == {0: old.name, 1: new.name}


def test_a_replayed_batch_is_scored_by_the_version_that_scored_it_first(
    night: Night, real_packets: list[bytes], trained_models: list[Path]
) -> None:
    old, new = trained_models
    night.publish(real_packets[:8])
    night.run()
    before = night.rows(classifications)
    # As after a crash between the plan and the commit: planned, not committed, tables empty.
    (night.settings.stream.checkpoint / "commits" / "0").unlink()
    (night.settings.stream.checkpoint / "commits" / ".0.crc").unlink(missing_ok=True)
    with night.engine.begin() as connection:
        for table in (accounting, classifications):
            connection.execute(table.delete())
    night.promote(new)
    night.run()
    planned = (night.settings.stream.checkpoint / "offsets" / "0").read_text().splitlines()[-1]
    assert json.loads(planned)["model"] == old.name

    def without_clock(rows: list[dict[str, object]]) -> list[dict[str, object]]:
        return [{k: v for k, v in row.items() if k != "processed_ms"} for row in rows]

    assert without_clock(night.rows(classifications)) == without_clock(before)


def test_a_batch_that_was_committed_before_the_crash_changes_nothing(
    night: Night, real_packets: list[bytes]
) -> None:
    night.publish(real_packets[:8])
    night.run()
    before, n_delta = night.rows(classifications), night.delta().num_rows
    (night.settings.stream.checkpoint / "commits" / "0").unlink()
    (night.settings.stream.checkpoint / "commits" / ".0.crc").unlink(missing_ok=True)
    night.run()
    assert night.rows(classifications) == before
    assert night.delta().num_rows == n_delta
    assert all(part.problems == () for part in night.audit())


def test_without_a_model_the_stream_says_what_to_do(night: Night) -> None:
    night.models = []
    empty = type(night.settings)(
        state=night.settings.state / "empty", kafka=night.settings.kafka.model_dump()
    )
    from deploy.places import open_store  # noqa: PLC0415
    from deploy.wiring import job_config  # noqa: PLC0415
    from stream.job import start  # noqa: PLC0415

    open_store(empty)
    with pytest.raises(ConfigurationError, match="noctule train"):
        start(night.spark, job_config(empty), once=True)
