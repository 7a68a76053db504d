"""What cannot wait, where a stream is behind: young and bright objects, found ahead of their turn.

Alerts are read in the order of their offsets, and nothing ever changes that: it is what makes every one of
them accountable. A stream that is behind looks ahead besides. It reads what waits, steps over the histories,
and scores the few alerts that somebody would want tonight; their rows and messages are there at once. When
their turn comes they are read again as all others are, and what was said of them stays.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lightcurves.decode import Packets, packets_in_place
from lightcurves.errors import NoctuleError
from models.inputs import Inputs
from stream.scoring import score_batch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from stream.scoring import Scored, Scorer

LOG: Final = logging.getLogger("noctule")

SHARE: Final = 0.25
"""So many of the alerts that are looked at together are scored at most, and one in any case: the brightest.
If everything were urgent, nothing would be."""


@dataclass(frozen=True)
class Priority:
    """Which alerts cannot wait: of an object, and all of what is given.

    Attributes
    ----------
    young_days
        The object was detected first at most so many days before, by its light curve.
    bright_sigma
        The alert's difference flux is at least so many times its error, of either sign.
    """

    young_days: float | None = None
    bright_sigma: float | None = None


class Lookout:
    """Finds and scores what cannot wait; may be used by several threads.

    Parameters
    ----------
    scorer
        Whose schemas and models are used.
    priority
        What is looked for.
    """

    def __init__(self, scorer: Scorer, priority: Priority) -> None:
        self._scorer = scorer
        self._priority = priority
        self._heads = scorer.decoder.without_history()
        self._told = False

    def find(self, packets: list[bytes], versions: str) -> tuple[NDArray[np.int64], Scored | None]:
        """Return which of the framed packets cannot wait, in their order, and their scores.

        Alerts of a survey without a model can. Of a list on which the program fails nothing is returned:
        the batch whose turn it is finds the guilty packet.

        Raises
        ------
        NoctuleError
            A service is away, or something is set up wrongly.
        """
        try:
            return self._find(packets_in_place(packets), versions)
        except NoctuleError:
            raise
        except Exception:
            if not self._told:  # once: it may be every list
                LOG.exception("looking ahead fails; alerts come in their turn alone")
            self._told = True
            return np.zeros(0, np.int64), None

    def _find(self, packets: Packets, versions: str) -> tuple[NDArray[np.int64], Scored | None]:
        models = self._scorer.models(versions)
        chosen = self._bright(packets, models)
        if not chosen.size:
            return chosen, None
        inputs = Inputs(*self._scorer.decoder.decode_both(_some(packets, chosen)))
        alerts, ages = inputs.table, inputs.ages()
        wanted = np.asarray(alerts["reject_reason"].is_null()) & ~np.isnan(ages)
        if self._priority.young_days is not None:
            wanted &= ages <= self._priority.young_days
        rows = np.flatnonzero(wanted)
        if not rows.size:
            return rows, None
        rows = _brightest(rows, sigmas_of(alerts)[rows], packets.starts.size)
        return chosen[rows], score_batch(inputs.take(rows), models)

    def _bright(self, packets: Packets, surveys: Iterable[str]) -> NDArray[np.int64]:
        """Return which packets are of an object of the surveys, and bright enough."""
        heads = self._heads.decode(packets)
        wanted = np.asarray(heads["object_id"].fill_null(0)) != 0
        wanted &= np.asarray(pc.is_in(heads["survey"], pa.array(list(surveys), pa.string())))
        sigmas = sigmas_of(heads)
        if self._priority.bright_sigma is not None:
            wanted &= sigmas >= self._priority.bright_sigma
        chosen = np.flatnonzero(wanted)
        if self._priority.young_days is None:  # then nothing else is asked
            chosen = _brightest(chosen, sigmas[chosen], packets.starts.size)
        return chosen


def _brightest(
    rows: NDArray[np.int64], sigmas: NDArray[np.float64], n_looked_at: int
) -> NDArray[np.int64]:
    """Return those of the rows that may be taken, in their order."""
    at_most = math.ceil(SHARE * n_looked_at)
    return np.sort(rows[np.argsort(-sigmas, kind="stable")[:at_most]])


def sigmas_of(alerts: pa.Table) -> NDArray[np.float64]:
    """Return how many errors each alert's flux is away from 0; -1 where either is missing or absurd."""
    flux, sigma = (
        alerts[name].cast(pa.float64()).fill_null(np.nan).to_numpy()
        for name in ("flux_njy", "sigma_njy")
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.abs(flux) / sigma
    return np.where(np.isfinite(ratio) & (sigma > 0), ratio, -1.0)


def _some(packets: Packets, members: NDArray[np.int64]) -> Packets:
    return Packets(packets.data, packets.starts[members], packets.ends[members])
