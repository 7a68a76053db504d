"""Make a model of the first format, and what it says: with the code of commit 585cf7c, from its root,

``python tests/models/data/make_first_format.py tests/models/data/first_format``.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

from models import forest
from models.artifact import save_model
from models.scoring import load_model
from models.training import moments_of, train
from tests.sky import FAST, sky_table

forest.N_TREES = 8  # type: ignore[misc]
folder = Path(sys.argv[1])
settings = replace(FAST, rounds=6)
save_model(train(moments_of(sky_table(), FAST.moments), settings), folder)
scores = load_model(folder).score(moments_of(sky_table(8, seed=99, first_id=2**61), 2))
(folder / "scores.json").write_text(json.dumps(scores.to_pylist(), indent=0) + "\n")
