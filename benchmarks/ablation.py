"""What each family of features is worth: ``python -m benchmarks.ablation``.

LightGBM with each family left out in turn, with each alone, and with the expensive ones added, out of fold (5
folds split by object) on PLAsTiCC's training set without host redshift, as packets are, and on SNPCC's
spectroscopic objects. Objects count equally, over all moments and as a whole (the last moment); the error
is that of the difference to the default set, over objects.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from benchmarks.setting import finish, plasticc, print_table
from benchmarks.shift import samples
from lightcurves.features.registry import ALL_FAMILIES, FAMILIES, names_in
from models.evaluation import macro_f1
from models.rows import TrainingRows, TrainingSettings
from models.training import as_in_packets, labelled, moments_of, object_folds, training_rows
from models.trees import TreeClassifier

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

SETTINGS: Final = TrainingSettings(folds=5)
MOMENTS: Final = 3
"""Of each object, besides the whole."""
THREADS: Final = 2


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, help="take so many objects of PLAsTiCC, by chance")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="noctule-bench-") as name:
        folder = Path(name)
        sets = {
            "PLAsTiCC": as_in_packets(sample(plasticc(folder / "plasticc"), given.objects)),
            "SNPCC": as_in_packets(samples(folder / "snpcc")[0]),
        }
    finish({name: ablation(name, table) for name, table in sets.items()})


def sample(table: pa.Table, n: int | None) -> pa.Table:
    """Return `n` of the rows by chance, all where `n` is None."""
    if n is None:
        return table
    return table.take(np.random.default_rng(1).permutation(table.num_rows)[:n])


def ablation(name: str, table: pa.Table) -> dict[str, dict[str, float]]:
    """Print and return log-loss and macro F1 without each family and with it alone."""
    moments, class_ids = labelled(moments_of(table, MOMENTS), SETTINGS.folds)
    rows = training_rows(
        moments, class_ids, replace(SETTINGS, hide_host=1.0, features=names_in(ALL_FAMILIES))
    )
    whole = np.zeros(len(rows.truth), bool)
    whole[[np.flatnonzero(rows.owner == k)[-1] for k in range(rows.owner.max() + 1)]] = True
    variants = variants_of_families()
    losses = {}
    scores = {}
    began = time.monotonic()
    for variant, used in variants.items():
        print(f"\r{name}: {variant}, {time.monotonic() - began:.0f} s  ", end="", file=sys.stderr)
        p = out_of_fold(rows._replace(names=used), class_ids)
        losses[variant] = -np.log(np.maximum(p[np.arange(len(p)), rows.truth], 1e-9))
        scores[variant] = macro_f1(p.argmax(axis=1), rows.truth, len(class_ids), rows.weights)
    print(file=sys.stderr)
    found = {}
    for variant, loss in losses.items():
        change = loss - losses["all"]
        found[variant] = {
            "log_loss": float(np.average(loss, weights=rows.weights)),
            "log_loss_change": float(np.average(change, weights=rows.weights)),
            "error": error_of_mean(change, rows),
            "whole_log_loss": float(loss[whole].mean()),
            "whole_log_loss_change": float(change[whole].mean()),
            "whole_error": float(change[whole].std() / np.sqrt(whole.sum())),
            "macro_f1": float(scores[variant]),
        }
    table_rows = [
        (
            variant,
            f"{len(variants[variant])}",
            f"{one['log_loss']:.4f}",
            f"{one['log_loss_change']:+.4f} ± {one['error']:.4f}",
            f"{one['whole_log_loss']:.4f}",
            f"{one['whole_log_loss_change']:+.4f} ± {one['whole_error']:.4f}",
            f"{one['macro_f1']:.3f}",
        )
        for variant, one in found.items()
    ]
    head = (
        f"{name}, {int(rows.owner.max()) + 1:,} objects",
        "features",
        "log-loss",
        "change",
        "as a whole",
        "change",
        "macro F1",
    )
    print_table(head, table_rows)
    return found


def variants_of_families() -> dict[str, tuple[str, ...]]:
    """Return which features each variant uses."""
    usual = [family.name for family in FAMILIES]
    expensive = [family.name for family in ALL_FAMILIES if family not in FAMILIES]

    def of(names: list[str]) -> tuple[str, ...]:
        return names_in(tuple(family for family in ALL_FAMILIES if family.name in names))

    return {
        "all": of(usual),
        **{f"without {name}": of([n for n in usual if n != name]) for name in usual},
        **{f"{name} alone": of([name]) for name in usual},
        **{f"with {name}": of([*usual, name]) for name in expensive},
        f"with {' and '.join(expensive)}": of([*usual, *expensive]),
    }


def out_of_fold(rows: TrainingRows, class_ids: tuple[int, ...]) -> NDArray[np.float64]:
    """Return each row's class probabilities from trees that never saw its object."""
    fold = object_folds(rows, SETTINGS)[rows.owner]
    p = np.zeros((len(rows.truth), len(class_ids)))

    def fill(k: int) -> None:
        grown = TreeClassifier.fit(rows.take(fold != k), class_ids, SETTINGS)
        p[fold == k] = grown.probabilities(rows.take(fold == k).inputs)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(fill, range(SETTINGS.folds)))
    return p


def error_of_mean(change: NDArray[np.float64], rows: TrainingRows) -> float:
    """Return the standard error of the mean change of an object."""
    of_object: Any = np.bincount(rows.owner, rows.weights * change)
    return float(of_object.std(ddof=1) / np.sqrt(of_object.size))


if __name__ == "__main__":
    main()
