"""Which novelty score finds a class that the model has never seen: each class withheld in turn.

Everything happens within the demo's training objects: for each class, train without it on two folds
and rank the third. Decides :mod:`models.novelty`; no test object is touched.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.early import held_out
from benchmarks.setting import finish
from lightcurves.taxonomy import class_name
from models.evaluation import auroc
from models.kinds import kinds_of
from models.rows import TrainingSettings
from models.training import labelled, moments_of, object_folds, training_rows
from models.trees import TreeClassifier

SETTINGS = TrainingSettings(rounds=60)


def rank(values: Any) -> Any:
    """Return each value's rank among all, 0 to 1."""
    return np.searchsorted(np.sort(values), values) / len(values)


def measure(folder: Path) -> dict[str, dict[str, float]]:
    """Return, for each score, the AUROC of each class when withheld."""
    moments, class_ids = labelled(moments_of(held_out(folder)[0]), SETTINGS.folds)
    rows = training_rows(moments, class_ids, SETTINGS)
    ranked = object_folds(rows, SETTINGS)[rows.owner] == 0
    results: dict[str, dict[str, float]] = {}
    for k, class_id in enumerate(class_ids):
        known = tuple(c for c in class_ids if c != class_id)
        without = rows._replace(truth=rows.truth - (rows.truth > k))
        inside, judged = without.take(~ranked & (rows.truth != k)), rows.take(ranked).inputs
        p = TreeClassifier.fit(inside, known, SETTINGS).probabilities(judged)
        found_by = {
            name: kind.fit(inside, known, SETTINGS).strangeness(judged, p)
            for name, kind in kinds_of("detector").items()
        }
        ranks = {name: rank(strangeness) for name, strangeness in found_by.items()}
        scores = {
            **found_by,
            "1 - largest probability": 1 - p.max(axis=1),
            "sum of ranks (forest, entropy)": ranks["isolation_forest"] + ranks["entropy"],
            "product of ranks (forest, entropy)": ranks["isolation_forest"] * ranks["entropy"],
            "product of all ranks": np.prod(list(ranks.values()), axis=0),
        }
        strange = rows.truth[ranked] == k
        for name, score in scores.items():
            results.setdefault(name, {})[class_name(class_id)] = auroc(
                score[strange], score[~strange]
            )
    return results


def main() -> None:
    """Run and print."""
    with tempfile.TemporaryDirectory(prefix="noctule-bench-") as name:
        results = measure(Path(name))
    classes = list(next(iter(results.values())))
    print("| score | mean | " + " | ".join(classes) + " |")
    print("|---" * (len(classes) + 2) + "|")
    for name, by_class in results.items():
        cells = " | ".join(f"{by_class[c]:.2f}" for c in classes)
        print(f"| {name} | {np.mean(list(by_class.values())):.3f} | {cells} |")
    finish({name: float(np.mean(list(by_class.values()))) for name, by_class in results.items()})


if __name__ == "__main__":
    main()
