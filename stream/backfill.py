"""Which offsets no stream has read, and the plan by which a backfill reads them.

A backfill is the ordinary job over fixed ranges of offsets, pinned to its model versions, with a
checkpoint and a run id of its own. It reads what no run has accounted for; offsets that still wait for a
stream are left to the stream. The plan is saved before the first batch, and a backfill that was killed
resumes from it: with a new plan, its half-written batch would count as read.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from store import tables
from store.clock import now_ms
from store.database import reading
from stream.audit import lost_offsets
from stream.rescore import Gone, offsets_between

if TYPE_CHECKING:
    from pathlib import Path

    from stream.consumer import Watermarks
    from stream.rescore import Times

PLAN_FILE: Final = "plan.json"
DONE_FILE: Final = "done"

Offsets = tuple[int, int]


@dataclass(frozen=True)
class Plan:
    """What a backfill reads.

    Attributes
    ----------
    version
        Of the models that score, as :mod:`stream.versions` writes them.
    passes
        ``topic:partition`` to offsets ``[start, end)``: one run of the job each, since the offsets of a
        run follow each other without a gap.
    gone
        Topic, partition and offsets that no run has read and Kafka no longer has.
    n_waiting
        Offsets of the time range that are left to the stream.
    planned_ms
        When the plan was made.
    """

    version: str
    passes: list[dict[str, Offsets]]
    gone: list[Gone]
    n_waiting: int
    planned_ms: int

    def write(self, folder: Path) -> None:
        """Write the plan into `folder`, whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / f".{PLAN_FILE}"
        draft.write_text(json.dumps(asdict(self)))
        draft.rename(folder / PLAN_FILE)

    @classmethod
    def read(cls, folder: Path) -> Plan:
        """Read what :meth:`write` wrote."""
        raw = json.loads((folder / PLAN_FILE).read_text())
        passes = [{key: (first, end) for key, (first, end) in one.items()} for one in raw["passes"]]
        return cls(**{**raw, "passes": passes, "gone": [Gone(*gone) for gone in raw["gone"]]})


def backfill_folder(folder: Path, question: tuple[object, ...]) -> Path:
    """Return the folder of the backfill for `question`: an unfinished one, or the next.

    Parameters
    ----------
    folder
        Folder of all backfills.
    question
        What was requested; the same request is the same backfill until it is done.
    """
    digest = hashlib.sha256(repr(question).encode()).hexdigest()[:12]
    number = 1
    while (folder / f"{digest}-{number}" / DONE_FILE).is_file():
        number += 1
    return folder / f"{digest}-{number}"


def plan_backfill(engine: sa.Engine, marks: Watermarks, times: Times, version: str) -> Plan:
    """Return a plan to read the offsets that arrived within `times` and that no run has read.

    Parameters
    ----------
    engine
        The database; its accounting records what was read.
    marks
        Which offsets Kafka holds.
    times
        A range of arrival times.
    version
        Versions of the models that are to score, as :mod:`stream.versions` writes them.
    """
    ranges, removed = offsets_between(engine, marks, times)
    holes: dict[str, list[Offsets]] = {}
    gone: list[Gone] = []
    n_waiting = 0
    with reading(engine) as connection:
        for one in removed:
            ours = unread(accounted(connection, one.topic, one.partition), one.start, one.end)
            gone += [Gone(one.topic, one.partition, *hole) for hole in ours]
        for (topic, partition), (start, end) in ranges.items():
            done = accounted(connection, topic, partition)
            furthest = max((last for _, last in done), default=end)
            n_waiting += max(0, end - max(start, furthest))
            holes[f"{topic}:{partition}"] = unread(done, start, min(end, furthest))
    rounds = zip_longest(*([(key, hole) for hole in ranges_] for key, ranges_ in holes.items()))
    passes = [dict(filter(None, one)) for one in rounds]
    return Plan(version, passes, gone, n_waiting, now_ms())


def accounted(connection: sa.Connection, topic: str, partition: int) -> list[Offsets]:
    """Return the offsets of a partition that any run has read, without those that were lost to it."""
    table = tables.accounting.c
    query = sa.select(tables.accounting).where(
        table.topic == topic, table.kafka_partition == partition
    )
    done: list[Offsets] = []
    for row in connection.execute(query):
        lost = lost_offsets(connection, row) if row.n_lost else []
        done += unread(lost, row.start_offset, row.end_offset)
    return done


def unread(done: list[Offsets], start: int, end: int) -> list[Offsets]:
    """Return the parts of ``[start, end)`` that are in none of `done`, in order.

    Examples
    --------
    >>> unread([(2, 4), (3, 6), (8, 9)], 0, 10)
    [(0, 2), (6, 8), (9, 10)]
    """
    gaps = []
    at = start
    for first, last in sorted(one for one in done if one[0] < one[1]):
        if first >= end:
            break
        if first > at:
            gaps.append((at, first))
        at = max(at, last)
    if at < end:
        gaps.append((at, end))
    return gaps
