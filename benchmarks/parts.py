"""What each part of a model costs: ``python -m benchmarks.parts``.

A model of every kind of classifier and detector, trained on a quarter of PLAsTiCC; its parts
timed one by one on the whole light curves of the rest, in the batches that the stream scores together. The
baseline is the pass that computes the default features, which every alert needs in any case.

``--model FOLDER --note`` times the parts of an existing model, and writes their costs into its manifest.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from benchmarks.setting import finish, plasticc, print_table, shortest_s, split
from lightcurves.features.registry import default_families, names_in
from models.artifact import note_costs, save_model
from models.inputs import Inputs
from models.kinds import kinds_of
from models.rows import TrainingSettings
from models.scoring import Model, load_model
from models.training import as_in_packets, moments_of, train

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa

BATCH: Final = 128
SETTINGS: Final = TrainingSettings(
    classifiers=tuple(kinds_of("classifier")), detectors=tuple(kinds_of("detector"))
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="time the parts of this model")
    parser.add_argument("--note", action="store_true", help="write the costs into its manifest")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="noctule-bench-") as name:
        folder = Path(name)
        known, rest = split(plasticc(folder / "plasticc"), 0.25, 1)
        artifact = args.model
        if artifact is None:
            artifact = folder / "model"
            save_model(train(moments_of(known), SETTINGS), artifact)
        model = load_model(artifact)
        costs = costs_us(model, as_in_packets(rest[:BATCH]))
        if args.note and args.model is not None:
            note_costs(args.model, costs)
    features_us = costs.pop("features")
    rows = [
        (kind, f"{us:.1f}", f"{us / features_us:.2f}")
        for kind, us in sorted(costs.items(), key=lambda item: -item[1])
    ]
    print_table(("part", "us an object", "of the default features' pass"), rows)
    finish({"features_us": features_us, **{f"{kind}_us": us for kind, us in costs.items()}})


def costs_us(model: Model, table: pa.Table) -> dict[str, float]:
    """Return microseconds an object of each part by its kind, and of the default features."""
    n = table.num_rows
    default = names_in(default_families())
    ready = Inputs(table)
    ready.features(model.manifest.features)
    outputs = [part.probabilities(ready) for part in model.all_of("classifier")]
    raw = model.only("combiner").combine(outputs)
    p = model.only("calibration").apply(raw)
    strange = {part.kind: part.strangeness(ready, p) for part in model.all_of("detector")}
    calls: dict[str, Callable[[Any], Any]] = {
        "classifier": lambda part: part.probabilities(ready),
        "combiner": lambda part: part.combine(outputs),
        "calibration": lambda part: part.apply(raw),
        "sets": lambda part: part.members(p),
        "detector": lambda part: part.strangeness(ready, p),
        "novelty": lambda part: part.novelty_of(strange),
    }
    results = {"features": shortest_s(lambda: Inputs(table).features(default)) / n * 1e6}
    for part in model.parts:
        call = calls[part.role]
        results[part.kind] = shortest_s(lambda part=part, call=call: call(part)) / n * 1e6  # type: ignore[misc]
    assert np.isfinite(list(results.values())).all()
    return results


if __name__ == "__main__":
    main()
