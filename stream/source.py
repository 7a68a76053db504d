"""The Spark data source: offset ranges in, packed rows of :mod:`stream.rows` out.

It plans ranges and knows nothing of science: the function that the option ``run`` names processes
a range. Options are text: ``topics`` and ``client`` (librdkafka's settings) as JSON,
``starting`` (earliest or latest), ``checkpoint`` (Spark's folder), ``offsets`` (JSON: the first and one
past the last that are read, by ``topic:partition``; empty: from ``starting`` on), ``max_alerts`` of a
batch (0: no limit), ``behind`` (a batch looks ahead if more than this many alerts wait; 0: never),
``tasks`` that a batch is split into, ``pace_s`` from planning a batch to planning the next, ``lost``
(stop or skip, if Kafka has removed what was not read yet), ``timeout_s``; ``run`` and
``choose_version`` as ``module:function``; these functions get all options.

An offset is ``{"<topic>:<partition>": next offset, ..., "model": versions}``. The versions, a text that
:mod:`stream.versions` reads, are chosen when a batch is planned and Spark writes them into its checkpoint
with the offsets, so a batch has one version for each survey, and a batch that is replayed after a crash is
scored by the same versions as before.
"""

from __future__ import annotations

import json
import time
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pyspark.sql.datasource import DataSource, DataSourceStreamReader, InputPartition
from pyspark.sql.streaming.datasource import (
    ReadAllAvailable,
    ReadLimit,
    ReadMaxRows,
    SupportsTriggerAvailableNow,
)

from lightcurves.errors import ConfigurationError, UnavailableError
from stream.consumer import Range, Watermarks
from stream.rows import PACKED_SPARK_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import pyarrow as pa
    from pyspark.sql.types import StructType

SOURCE_NAME: Final = "noctule"
MODEL_KEY: Final = "model"
AHEAD_KEY: Final = "ahead"
LOOK: Final = 20_000
"""A batch looks ahead at no more than this many alerts: a few seconds' work."""
LOOKING: Final = 4
"""While a batch has many alerts to look ahead at, it reads this many times fewer: urgent ones come sooner."""
MUCH: Final = 2
"""Many are more than this many full batches. A batch that looks ahead only at new arrivals reads as much as
always, or a stream that is behind would never catch up."""
_PATIENCE_S: Final = 0.2
"""Spark is kept waiting no longer than this at a time, so that it can be stopped."""
_IDLE_S: Final = 0.2
"""While nothing new arrives, Kafka is queried at intervals of at most this."""
FIRST_FILE: Final = "noctule-first-offsets"


def named_function(path: str) -> Callable[..., Any]:
    """Return the function that ``module:function`` names."""
    module, _, name = path.partition(":")
    function: Callable[..., Any] = getattr(import_module(module), name)
    return function


class AlertSource(DataSource):
    """``spark.readStream.format("noctule")``; see the module for its options."""

    @classmethod
    def name(cls) -> str:
        """Return the format's name."""
        return SOURCE_NAME

    def schema(self) -> str:
        """Return Spark's DDL of :data:`stream.rows.PACKED_SCHEMA`."""
        return PACKED_SPARK_SCHEMA

    def streamReader(self, schema: StructType) -> AlertStreamReader:  # noqa: ARG002, N802 - Spark's
        """Return the reader."""
        return AlertStreamReader(dict(self.options))


class PlannedTask(InputPartition):
    """One task: the ranges to read, the ranges to look ahead at, the model versions that score."""

    def __init__(
        self, parts: tuple[Range, ...], look_ahead: tuple[Range, ...], version: str
    ) -> None:
        super().__init__(None)
        self.parts = parts
        self.look_ahead = look_ahead
        self.version = version


class AlertStreamReader(DataSourceStreamReader, SupportsTriggerAvailableNow):
    """Plans batches on the driver and reads them in the workers.

    Parameters
    ----------
    options
        See the module.
    """

    def __init__(self, options: Mapping[str, str]) -> None:
        self._options = dict(options)
        self._fixed: dict[str, tuple[int, int]] = json.loads(options.get("offsets") or "{}")
        self._marks: Watermarks | None = None
        self._target: dict[str, int] | None = None
        self._seen: dict[str, tuple[int, int]] = {}  # the broker's latest answer
        self._next_s = 0.0  # when the next batch may be planned, by the monotonic clock
        self._in_parts = 1  # a planned batch is this many times smaller than a full one

    # -- on the driver -------------------------------------------------------------------------

    def initialOffset(self) -> dict[str, Any]:  # noqa: N802 - Spark's
        """Return where the run begins: the topics' first or next offsets at its start, or those given.

        They are saved in the checkpoint: Spark asks again if it restarts before the first batch is
        committed, and alerts that arrived in the meantime would be skipped.
        """
        if self._fixed:
            return {key: start for key, (start, _) in self._fixed.items()} | {MODEL_KEY: ""}
        file = Path(self._options["checkpoint"]) / FIRST_FILE
        if not file.is_file():
            first = {key: bounds[self._side] for key, bounds in self._bounds().items()}
            draft = file.with_suffix(".draft")
            draft.write_text(json.dumps({**first, MODEL_KEY: ""}))
            draft.rename(file)
        offset: dict[str, Any] = json.loads(file.read_text())
        return offset

    def latestOffset(self, start: dict[str, Any], limit: ReadLimit) -> dict[str, Any]:  # noqa: N802
        """Return how far the next batch goes, with the model versions that score it.

        A partition that is not in `start` is new: the batch records where it begins, the
        next one reads it. One that was added to a topic begins at its first offset, whatever
        ``starting`` is: all that it holds arrived after the run began.

        Raises
        ------
        UnavailableError
            A topic ends before `start`: it is not the one that was read.
        ConfigurationError
            Kafka has removed offsets before they were read, and ``lost`` is stop.

        Notes
        -----
        Spark's own triggers wait by the wall clock: if it is set back by an hour, they wait an hour longer.
        """
        early_s = self._next_s - time.monotonic()
        if early_s > 0:
            time.sleep(min(early_s, _PATIENCE_S))
        if early_s > _PATIENCE_S:
            return start
        planned = self._plan(start, limit)
        pace_s = float(self._options["pace_s"])
        if planned == start:
            pace_s = min(pace_s, _IDLE_S)
        self._next_s = time.monotonic() + pace_s / self._in_parts
        return planned

    def _plan(self, start: dict[str, Any], limit: ReadLimit) -> dict[str, Any]:
        self._in_parts = 1
        bounds = self._bounds()
        ends = self._target or {key: high for key, (_, high) in bounds.items()}
        known = {key: end for key, end in ends.items() if key in start}
        refuse_other_topics(start, ends)
        self._may_lose(start, known, bounds)
        at_most = limit.max_rows if isinstance(limit, ReadMaxRows) else None
        topics = {topic_of(key) for key in known}
        new = {
            key: bounds[key][0 if topic_of(key) in topics else self._side]
            for key in ends
            if key not in start
        }
        goal = plan_batch(start, known, at_most) | new
        if all(goal[key] == start.get(key) for key in goal):
            return start
        looked, n_new = self._look(start, goal, ends)
        if at_most is not None and n_new > MUCH * at_most:
            self._in_parts = LOOKING
            n_waiting = sum(known[key] > start[key] for key in known)
            few = max(-(-at_most // LOOKING), min(at_most, n_waiting))
            goal = plan_batch(start, known, few) | new
            looked, _ = self._look(start, goal, ends)
        ahead = {} if looked == goal else {AHEAD_KEY: looked}
        return {**goal, **ahead, MODEL_KEY: self._choose_version()}

    def _look(
        self, start: dict[str, Any], goal: dict[str, int], ends: dict[str, int]
    ) -> tuple[dict[str, int], int]:
        """Return how far a batch that reads to `goal` looks ahead, and how many of these alerts are new.

        A partition of which the batch reads nothing is in no task, so the batch does not look ahead there.
        """
        behind = int(self._options["behind"])
        seen = start.get(AHEAD_KEY, {})
        looked = {key: max(at, seen.get(key, 0)) for key, at in goal.items()}
        n_before = sum(looked.values())
        if 0 < behind < sum(max(0, end - goal[key]) for key, end in ends.items()):
            read = {key: ends[key] for key in ends if key in start and goal[key] > start[key]}
            looked |= plan_batch(looked, read, LOOK)
        return looked, sum(looked.values()) - n_before

    @property
    def _side(self) -> int:
        """Which of a partition's bounds a reader that is new to it starts from."""
        return 0 if self._options["starting"] == "earliest" else 1

    def getDefaultReadLimit(self) -> ReadLimit:  # noqa: N802 - Spark's
        """Return the maximum number of alerts of one batch."""
        at_most = int(self._options["max_alerts"])
        return ReadMaxRows(at_most) if at_most else ReadAllAvailable()

    def reportLatestOffset(self) -> dict[str, Any]:  # noqa: N802 - Spark's
        """Return the topics' ends, for the query's progress report."""
        return {key: bounds[1] for key, bounds in (self._seen or self._bounds()).items()}

    def prepareForTriggerAvailableNow(self) -> None:  # noqa: N802 - Spark's
        """Fix where to stop reading: at the topics' present ends, or at those that ``offsets`` gives."""
        self._options["pace_s"] = "0"
        if self._fixed:
            self._target = {key: end for key, (_, end) in self._fixed.items()}
            return
        self._target = {key: bounds[1] for key, bounds in self._bounds().items()}

    def partitions(self, start: dict[str, Any], end: dict[str, Any]) -> Sequence[InputPartition]:
        """Return the tasks that have something to read, each with all ranges of its partitions.

        A partition always goes to the task of the same number, so that, if Spark runs the task in the same
        worker as before, its consumer is still there; with one task it always is.

        Raises
        ------
        ConfigurationError
            Kafka has removed offsets of a batch that is now replayed, and ``lost`` is stop.
        """
        keys = [key for key in sorted(places(end)) if key in start]
        bounds = self._seen or self._bounds()  # not yet known if a replay comes first
        refuse_other_topics(
            {key: end[key] for key in keys}, {k: high for k, (_, high) in bounds.items()}
        )
        self._may_lose(start, keys, bounds)
        ranges = [what_is_left(key, start[key], end[key], bounds[key][0]) for key in keys]
        n_tasks = int(self._options["tasks"])
        looks = self._looks(start, end, keys, bounds)
        tasks = [(tuple(ranges[k::n_tasks]), tuple(looks[k::n_tasks])) for k in range(n_tasks)]
        return [
            PlannedTask(parts, look_ahead, end[MODEL_KEY])
            for parts, look_ahead in tasks
            if not all(part.is_empty for part in parts)
        ]

    def _looks(
        self,
        start: dict[str, Any],
        end: dict[str, Any],
        keys: Sequence[str],
        bounds: dict[str, tuple[int, int]],
    ) -> list[Range]:
        """Return the ranges to look ahead at, within what Kafka still has; empty if nothing is new."""
        if AHEAD_KEY not in end:
            return []
        seen, looked = start.get(AHEAD_KEY, {}), end[AHEAD_KEY]
        looks = []
        for key in keys:
            low, high = bounds[key]
            first = max(end[key], seen.get(key, 0), low)
            looks.append(Range(*split_key(key), first, max(first, min(looked[key], high))))
        return looks

    def _may_lose(
        self, start: dict[str, Any], keys: Iterable[str], bounds: dict[str, tuple[int, int]]
    ) -> None:
        if self._options["lost"] == "stop":
            refuse_lost_offsets(start, {key: bounds[key][0] for key in keys})

    def _bounds(self) -> dict[str, tuple[int, int]]:
        if self._marks is None:
            topics = json.loads(self._options["topics"])
            timeout_s = float(self._options["timeout_s"])
            self._marks = Watermarks(topics, json.loads(self._options["client"]), timeout_s)
        self._seen = {
            f"{topic}:{number}": bounds for (topic, number), bounds in self._marks.now().items()
        }
        return self._seen

    def _choose_version(self) -> str:
        version: str = named_function(self._options["choose_version"])(self._options)
        return version

    # -- in a worker ---------------------------------------------------------------------------

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        """Run the named function over the task's ranges."""
        assert isinstance(partition, PlannedTask)  # noqa: S101 - Spark hands back what was planned
        run = named_function(self._options["run"])
        yield from run(partition, self._options)


def split_key(key: str) -> tuple[str, int]:
    """Return topic and partition of an offset's key.

    Examples
    --------
    >>> split_key("alerts:7")
    ('alerts', 7)
    """
    topic, _, number = key.rpartition(":")
    return topic, int(number)


def places(offset: Mapping[str, Any]) -> dict[str, int]:
    """Return the part of an offset that concerns partitions: the next offset of each.

    Examples
    --------
    >>> places({"alerts:7": 12, "ahead": {"alerts:7": 90}, "model": "1"})
    {'alerts:7': 12}
    """
    return {key: at for key, at in offset.items() if key not in {MODEL_KEY, AHEAD_KEY}}


def topic_of(key: str) -> str:
    """Return the topic of an offset's key."""
    return split_key(key)[0]


def refuse_other_topics(start: Mapping[str, Any], ends: Mapping[str, int]) -> None:
    """Raise if a topic ends before the offsets that were read of it: it was deleted and created again.

    Raises
    ------
    UnavailableError
        The message says what to do; reading on would skip alerts of the new topic.
    """
    topics = {topic_of(key) for key in ends}
    for key in places(start):
        end = ends.get(key, 0)  # a partition that is gone has nothing
        if topic_of(key) in topics and end < start[key]:
            raise UnavailableError(
                "Kafka",
                f"{key} ends at {end}, but {start[key]} had been read: the topic was made anew; "
                "give it another name, or start with another NOCTULE_STATE",
            )


def refuse_lost_offsets(start: Mapping[str, Any], lows: Mapping[str, int]) -> None:
    """Raise if a topic no longer has what is to be read next.

    Raises
    ------
    ConfigurationError
        The message gives the offsets, and says what to do.
    """
    lost = [f"{start[key]} to {low - 1} of {key}" for key, low in lows.items() if low > start[key]]
    if lost:
        raise ConfigurationError(
            f"Kafka removed offsets before they were read: {', '.join(lost)}. Set stream.lost_offsets to "
            "'skip' to go on without them, and give the topic a longer retention"
        )


def what_is_left(key: str, start: int, end: int, low: int) -> Range:
    """Return the range from `start` to `end` of a partition that now begins at `low`, less what is lost.

    Examples
    --------
    >>> what_is_left("alerts:7", 10, 30, 12)
    Range(topic='alerts', partition=7, start=12, end=30, n_lost=2)
    """
    first = min(max(start, low), end)
    return Range(*split_key(key), first, end, first - start)


def plan_batch(
    start: Mapping[str, Any], ends: Mapping[str, int], at_most: int | None
) -> dict[str, int]:
    """Return one past the last offset of each partition in the next batch.

    With `at_most` every partition gets an equal share; what one does not need goes to the others.

    Examples
    --------
    >>> plan_batch({"a:0": 0, "a:1": 5}, {"a:0": 100, "a:1": 6}, 10)
    {'a:0': 9, 'a:1': 6}
    """
    waiting = {key: max(0, end - start.get(key, 0)) for key, end in ends.items()}
    taken = dict.fromkeys(waiting, 0)
    left = sum(waiting.values()) if at_most is None else at_most
    open_keys = [key for key in sorted(waiting) if waiting[key]]
    while left > 0 and open_keys:
        share = max(1, left // len(open_keys))
        for key in list(open_keys):
            step = min(share, waiting[key] - taken[key], left)
            taken[key] += step
            left -= step
            if taken[key] == waiting[key]:
                open_keys.remove(key)
    return {key: start.get(key, 0) + taken[key] for key in ends}
