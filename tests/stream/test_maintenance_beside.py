"""Maintenance at work all the while that a stream commits: neither loses what the other writes."""

from __future__ import annotations

import threading
from collections.abc import Callable

from benchmarks.setting import with_id
from deploy.places import delta_folder
from store.maintenance import Retention, Saved, maintain
from store.tables import classifications
from tests.stream.conftest import Night

ROUNDS = 4


def test_rows_stay_and_light_curves_go_by_the_rule(
    make: Callable[..., Night], real_packets: list[bytes]
) -> None:
    night = make(stream={"max_alerts_per_batch": 24, "trigger_s": 0.0})
    for k in range(ROUNDS):
        packets = [with_id(packet, 10**17 + 100 * k + i) for i, packet in enumerate(real_packets)]
        night.publish(packets, partition=k % 2)
    done = threading.Event()
    rounds: list[Saved] = []

    def keep_small() -> None:
        folder, retention = delta_folder(night.settings), Retention(light_curve_days=0.0)
        while True:
            last = done.is_set()
            rounds.append(maintain(night.engine, folder, retention))
            if last:
                return

    beside = threading.Thread(target=keep_small)
    beside.start()
    try:
        night.run()
    finally:
        done.set()
        beside.join()

    kept = night.delta()
    places = [
        *zip(kept["kafka_partition"].to_pylist(), kept["kafka_offset"].to_pylist(), strict=True)
    ]
    assert len(places) == len(set(places)) == ROUNDS * len(real_packets)
    by_id = {row["dia_source_id"]: row for row in night.rows(classifications)}
    for row in kept.select(["dia_source_id", "entropy", "model_version"]).to_pylist():
        assert row["entropy"] == by_id[row["dia_source_id"]]["entropy"]
    # One round after the stream's end: every object has its newest light curve, and repeats went.
    shown = {row["object_id"] for row in kept.to_pylist() if row["light_curve"] is not None}
    assert shown >= {row["object_id"] for row in by_id.values() if row["object_id"]}
    assert sum(saved.n_emptied for saved in rounds) > 0
    assert all(part.problems == () and part.n_waiting == 0 for part in night.audit())
