"""How much weighting for a target helps: SNPCC, from its 1,103 spectroscopic supernovae to the rest.

Trains on the spectroscopic sample with and without ``--target`` (the rest, unlabelled) and reports on
that rest, whose classes no training saw.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.setting import data_folder, finish
from lightcurves.folders import read_light_curves
from lightcurves.imports import import_snpcc
from models.artifact import save_model
from models.evaluation import evaluate
from models.scoring import load_model
from models.training import moments_of, train


def samples(folder: Path) -> tuple[pa.Table, pa.Table]:
    """Return SNPCC's spectroscopic objects and all others."""
    source = data_folder() / "snpcc"
    import_snpcc(source, folder)
    table = read_light_curves(folder)
    truth = pq.read_table(source / "snpcc_metadata.parquet", columns=["snid", "is_train_spec"])
    spectra = truth.filter(truth["is_train_spec"])["snid"].to_pylist()
    inside = pa.array([object_id in set(spectra) for object_id in table["object_id"].to_pylist()])
    return table.filter(inside), table.filter(pc.invert(inside))


def figures(
    folder: Path, labelled: pa.Table, rest: pa.Table, target: pa.Table | None
) -> dict[str, Any]:
    """Train, score the rest, evaluate."""
    save_model(train(moments_of(labelled), target=target), folder / "model")
    return evaluate(load_model(folder / "model").score(rest), rest)


def main() -> None:
    """Run and print."""
    results = {}
    with tempfile.TemporaryDirectory(prefix="noctule-bench-") as name:
        labelled, rest = samples(Path(name) / "snpcc")
        for how, target in (("as they are", None), ("weighted for the target", moments_of(rest))):
            results[how] = figures(Path(name), labelled, rest, target)
    names = ("log_loss", "macro_f1", "accuracy", "ece", "coverage", "set_size")
    print("| labelled objects | " + " | ".join(names) + " |")
    print("|---" * (len(names) + 1) + "|")
    for how, result in results.items():
        print(f"| {how} | " + " | ".join(f"{result[name]:.3f}" for name in names) + " |")
    finish({how: {name: result[name] for name in names} for how, result in results.items()})


if __name__ == "__main__":
    main()
