"""The lag of the stream, in messages and in seconds.

It is what Kafka holds beyond what Spark has committed. Kafka itself is polled, not the streaming query, so
that the lag grows even if the query hangs.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from stream.source import places, split_key

if TYPE_CHECKING:
    from collections.abc import Mapping

Place = tuple[str, int]
"""Topic and partition."""

_MOST_SAMPLES: Final = 2_000  # per partition: 2.8 hours at one every 5 s; then they are thinned


@dataclass
class _Arrivals:
    """When messages of a partition were first seen.

    The messages seen at the first look had arrived before it. The messages from ``ends[k - 1]`` to
    ``ends[k]`` were first seen at ``times[k]``.
    """

    first_end: int
    first_s: float
    top: int
    ends: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    spacing_s: float = 0.0

    def see(self, end: int, now_s: float) -> None:
        if end <= self.top:
            return
        self.top = end
        if self.times and now_s - self.times[-1] < self.spacing_s:
            self.ends[-1] = end
            return
        self.ends.append(end)
        self.times.append(now_s)
        if len(self.ends) >= _MOST_SAMPLES:  # pairs become one, as old as the older
            self.ends, self.times = self.ends[1::2], self.times[::2]
            self.spacing_s = (now_s - self.times[0]) / len(self.times)

    def forget(self, done: int) -> None:
        """Drop what is known of messages before `done`."""
        at = bisect_right(self.ends, done)
        del self.ends[:at], self.times[:at]


class Lag:
    """What the topics hold, and how much of it is done.

    Parameters
    ----------
    done
        One past the last committed offset, by (topic, partition), from before this process began;
        partitions that no batch has reached are left out.
    from_start
        Whether such a partition is read from its first offset, or from its end.

    Notes
    -----
    The age of a waiting message is counted from when this process first saw its offset in the topic. Messages
    seen at the process's first look are taken to be as old as that look; once a batch is finished, as
    old as the newest alert of that batch, if that is older.
    """

    def __init__(self, done: Mapping[Place, int], *, from_start: bool) -> None:
        self._done = dict(done)
        self._from_start = from_start
        self._ends: dict[Place, int] = {}
        self._seen: dict[Place, _Arrivals] = {}
        self._newest_s: float | None = None

    def see(self, bounds: Mapping[Place, tuple[int, int]], now_s: float) -> None:
        """Record what Kafka holds: first offset and one past the last of every partition."""
        for place, (low, high) in bounds.items():
            self._done.setdefault(place, low if self._from_start else high)
            self._ends[place] = high
            self._seen.setdefault(place, _Arrivals(high, now_s, high)).see(high, now_s)

    def commit(self, offsets: Mapping[Place, int]) -> None:
        """Record how far Spark has read."""
        for place, offset in offsets.items():
            self._done[place] = max(offset, self._done.get(place, 0))
            if place in self._seen:
                self._seen[place].forget(self._done[place])

    def handled(self, newest_s: float) -> None:
        """Record when the newest alert that is done arrived in Kafka."""
        self._newest_s = newest_s

    def messages(self) -> dict[Place, int]:
        """Waiting messages, by (topic, partition); empty until Kafka was queried."""
        return {place: max(0, end - self._done[place]) for place, end in self._ends.items()}

    def seconds(self, now_s: float) -> float:
        """Age of the oldest waiting message; 0 if none is waiting."""
        waiting = [place for place, n in self.messages().items() if n]
        return max((max(0.0, now_s - self._since(place)) for place in waiting), default=0.0)

    def _since(self, place: Place) -> float:
        """When the first waiting message was first seen, as far as is known."""
        seen = self._seen[place]
        if self._done[place] >= seen.first_end:
            return seen.times[0]
        if self._newest_s is None:
            return seen.first_s
        return min(self._newest_s, seen.first_s)


def offsets_of(progress: Mapping[str, Any] | None) -> dict[Place, int]:
    """Return how far Spark has read, by (topic, partition), from a query's ``lastProgress``.

    Examples
    --------
    >>> offsets_of({"sources": [{"endOffset": '{"alerts:0": 812, "model": "1"}'}]})
    {('alerts', 0): 812}
    >>> offsets_of(None)
    {}
    """
    done: dict[Place, int] = {}
    for source in (progress or {}).get("sources", ()):
        offsets = source.get("endOffset") or {}
        ends = json.loads(offsets) if isinstance(offsets, str) else offsets
        for key, offset in places(ends or {}).items():
            done[split_key(key)] = int(offset)
    return done
