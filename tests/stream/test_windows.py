"""A stream that stops between two writes, and what its replay makes of it.

| window | what is there already | what the replay does |
|---|---|---|
| before SQL (``worked``) | the workers' Parquet files, in no table | writes new files, then everything |
| after SQL, before Delta (``sql``) | the rows | finds its accounting rows; Delta and Kafka get theirs |
| after Delta, before Kafka (``delta``) | rows and files | both are no-ops; Kafka gets everything |
| within the flush (``half sent``) | some messages | sends all again, the same bytes |
| after the flush, before Spark's commit (``sent``) | everything | sends all again, the same bytes |
| a worker's file is not handed on (``written``) | an orphan file | writes its own; vacuum takes the orphan |

Each window is hit twice: by SIGKILL, in a process that calls what Spark calls, and by an exception
under Spark itself.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from deltalake import DeltaTable
from pyspark.errors import StreamingQueryException

from benchmarks.kills import differences, mixed, send
from deploy.places import delta_folder
from store.tables import accounting
from tests.stream.conftest import Night
from tests.stream.kills import WINDOWS, live, two_topics, watched

SEED = 5


@pytest.mark.parametrize("window", [*WINDOWS, "written"])
def test_killed_in_a_window_nothing_is_lost_or_double(
    night: Night, real_packets: list[bytes], window: str
) -> None:
    night = two_topics(night, max_alerts_per_batch=30)
    expected = send(
        night.settings, mixed(real_packets, 60, night.settings.kafka.alert_topics, SEED)
    )
    for _ in range(2):  # the first batch, and a replay of it
        life = live(night.settings, die_at=window)
        assert life.killed
        assert "committed" not in life.told
    assert not live(night.settings).killed
    assert differences(night.settings, expected) == []


class Stopped(Exception):  # noqa: N818 - it is no error of the stream
    """The window has been reached."""


@pytest.mark.parametrize("window", WINDOWS)
def test_stopped_in_a_window_under_spark_nothing_is_lost_or_double(
    night: Night, real_packets: list[bytes], window: str
) -> None:
    night = two_topics(night, max_alerts_per_batch=30)
    expected = send(
        night.settings, mixed(real_packets, 60, night.settings.kafka.alert_topics, SEED)
    )

    def stop(done: str) -> None:
        if done == window:
            raise Stopped(done)

    with watched(stop), pytest.raises(StreamingQueryException, match="Stopped"):
        night.run()
    night.run()
    assert {row["batch_id"] for row in night.rows(accounting)} == {0, 1}
    assert differences(night.settings, expected) == []


def test_a_file_that_was_not_handed_on_is_an_orphan(
    night: Night, real_packets: list[bytes]
) -> None:
    night.publish(real_packets[:10])
    assert live(night.settings, die_at="written").killed
    night_folder = delta_folder(night.settings)
    (orphan,) = night_folder.glob("*.parquet")
    assert not live(night.settings).killed
    assert orphan.name not in [Path(name).name for name in DeltaTable(night_folder).file_uris()]
    assert night.delta().num_rows == 10
