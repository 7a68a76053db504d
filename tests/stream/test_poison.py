"""A packet on which the program itself fails: found by halving, kept, and in nobody's way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import stream.scoring
from lightcurves.errors import UnavailableError
from models.inputs import Inputs
from models.scoring import Model
from stream.scoring import Scored, Scorer, ScorerConfig

OUCH = ZeroDivisionError("ouch")


Score = Callable[[list[bytes]], Scored]


@pytest.fixture
def score(trained_models: list[Path]) -> Score:
    model = trained_models[0]
    scorer = Scorer(ScorerConfig(models_folder=str(model.parent)))
    return partial(scorer.score_packets, versions=model.name)


def fail_on(
    monkeypatch: pytest.MonkeyPatch, guilty: set[int], error: Exception = OUCH
) -> list[int]:
    """Let scoring fail wherever one of the alerts is there; return the sizes that were tried."""
    sound = stream.scoring.score_batch
    tried: list[int] = []

    def score_batch(inputs: Inputs, models: Mapping[str, Model], *others: Any) -> Scored:
        tried.append(len(inputs))
        if guilty & set(inputs.column("dia_source_id").to_pylist()):
            raise error
        return sound(inputs, models, *others)

    monkeypatch.setattr(stream.scoring, "score_batch", score_batch)
    return tried


def ids_of(scored: Scored) -> list[Any]:
    ids: list[Any] = scored.rows["dia_source_id"].to_pylist()
    return ids


def test_the_guilty_are_rejected_and_the_others_scored_as_ever(
    score: Score, real_packets: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    packets = [*real_packets[:20], b"no alert"]
    usual = score(packets)
    guilty = [3, 4, 17]
    tried = fail_on(monkeypatch, {ids_of(usual)[k] for k in guilty})
    scored = score(packets)
    assert [k for k in range(20) if not scored.readable[k]] == guilty
    for k in guilty:
        assert scored.rows["reject_reason"][k].as_py() == "failed"
        assert scored.rows["detail"][k].as_py() == "ZeroDivisionError: ouch"
    assert scored.rows["reject_reason"][20].as_py() == "bad_frame"
    others = np.setdiff1d(np.arange(21), guilty)
    for name, column in scored.rows.items():
        assert column.take(pa.array(others)).equals(usual.rows[name].take(pa.array(others))), name
    assert len(tried) < 2 * 3 * 6


def test_a_service_that_is_away_is_no_packets_fault(
    score: Score, real_packets: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ids_of(score(real_packets[:1]))[0]
    tried = fail_on(monkeypatch, {first}, UnavailableError("registry", "away"))
    with pytest.raises(UnavailableError):
        score(real_packets[:8])
    assert tried == [8]


def test_a_program_that_fails_on_everything_rejects_nothing(
    score: Score, real_packets: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = set(ids_of(score(real_packets)))
    fail_on(monkeypatch, everything)
    with pytest.raises(ZeroDivisionError):
        score(real_packets)
