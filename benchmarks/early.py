"""How good the scores are as an object ages, on objects that no training saw.

Trains on a quarter of PLAsTiCC with kilonovae and TDEs withheld (the demo's split) and reports on
the rest: log-loss, macro F1 and ECE by days since first detection, and the novelty AUROC of the
withheld classes. ``--redshift`` leaves host redshift and extinction in; without it the light curve is
all there is, as in LSST's packets. The table in ``docs/science.md`` is this command's output.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.setting import finish, plasticc
from deploy.sections import Settings
from lightcurves.folders import read_light_curves
from models.artifact import save_model
from models.evaluation import evaluate
from models.scoring import load_model
from models.training import as_in_packets, moments_of, train
from simulator.split import split_objects

FIGURES = ("log_loss", "macro_f1", "ece", "coverage", "set_size", "novelty_auroc")


def held_out(folder: Path) -> tuple[pa.Table, pa.Table]:
    """Return the demo's training objects, and all others with their classes."""
    demo = Settings().demo
    table = plasticc(folder / "all")
    parts = split_objects(
        folder / "all", folder / "split", seed=demo.seed, withheld_classes=demo.withheld_classes
    )
    training = read_light_curves(parts.train)
    inside = np.isin(table["object_id"].to_numpy(), training["object_id"].to_numpy())
    return training, table.filter(pa.array(~inside))


def measure(folder: Path, *, redshift: bool) -> dict[str, Any]:
    """Train, score and evaluate."""
    training, others = held_out(folder)
    save_model(train(moments_of(training)), folder / "model")
    model = load_model(folder / "model")
    moments = moments_of(others if redshift else as_in_packets(others))
    return {
        "model_version": model.manifest.model_version,
        **evaluate(model.score(moments), others),
    }


def table_of(result: dict[str, Any]) -> str:
    """Return the figures as a Markdown table."""
    head = ("days since first detection", "objects", *FIGURES)
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in [*result["by_days"], {**result, "from_days": "all"}]:
        days = (
            "all moments"
            if row["from_days"] == "all"
            else f"{row['from_days']:g} to {row['to_days'] or '...'}"
        )
        cells = " | ".join(f"{row[name]:.3f}" if name in row else "" for name in FIGURES)
        lines.append(f"| {days} | {row['n_objects']} | {cells} |")
    return "\n".join(lines)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--redshift", action="store_true", help="give the host redshift where known"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="noctule-bench-") as name:
        result = measure(Path(name), redshift=args.redshift)
    print(table_of(result))
    print("novelty AUROC by withheld class:", result["novelty_auroc_by_class"])
    finish(result)


if __name__ == "__main__":
    main()
