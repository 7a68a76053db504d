"""Reports of batches for tests: one valid thing with overrides."""

from __future__ import annotations

from typing import Any

import numpy as np

from stream.commit import BatchCounts
from stream.report import BatchReport

STAGES_S = {"look": 0.0, "wait": 0.4, "decode": 0.1, "features": 0.3, "score": 0.1, "rows": 0.05,
            "write": 0.1, "handover": 0.1, "sql": 0.2, "delta": 0.01, "kafka": 0.02}  # fmt: skip


def report(**changes: Any) -> BatchReport:
    counts = BatchCounts(
        n_read=10, n_classified=5, n_not_evaluated=2, n_duplicate=1, n_rejected=2, n_requested=1
    )
    given: dict[str, Any] = {
        "run_id": "r1",
        "batch_id": 12,
        "counts": counts,
        "stages_s": STAGES_S,
        "total_s": 1.0,
        "latency_s": np.linspace(0.5, 2.0, 8),
        "model_version": "20260310-5c1e7a",
    }
    return BatchReport(**{**given, **changes})
