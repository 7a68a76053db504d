"""Urgent alerts, if a stream is behind: of young and bright objects, found by looking ahead.

Alerts are always read in the order of their offsets, so that every one of them can be accounted for. A
stream that is behind also looks ahead: it reads the waiting alerts, skips their histories, and scores the few
that somebody would want tonight; their rows are written and their messages sent at once. When their turn
comes they are read again like all others, and the results of looking ahead stay.
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
"""At most this share of the alerts that are looked at together, rounded up, is scored: the brightest. If
everything were urgent, nothing would be."""


@dataclass(frozen=True)
class Priority:
    """Which alerts are urgent: those of an object that meet each condition that is not None.

    Attributes
    ----------
    young_days
        The object's first detection, by its light curve, is at most this many days old.
    bright_sigma
        The alert's difference flux is at least this many times its error, of either sign.
    """

    young_days: float | None = None
    bright_sigma: float | None = None


class Lookout:
    """Finds and scores urgent alerts; may be used by several threads.

    Parameters
    ----------
    scorer
        Its schemas and models are used.
    priority
        Which alerts are urgent.
    """

    def __init__(self, scorer: Scorer, priority: Priority) -> None:
        self._scorer = scorer
        self._priority = priority
        self._heads = scorer.decoder.without_history()
        self._has_logged = False

    def find(self, packets: list[bytes], versions: str) -> tuple[NDArray[np.int64], Scored | None]:
        """Return which of the framed packets are urgent, in their order, and their scores.

        Alerts of a survey without a model never are. If the program fails on a list, none of it is returned:
        the batch that reads it in turn finds the guilty packet.

        Raises
        ------
        NoctuleError
            A service is unavailable, or the configuration is wrong.
        """
        try:
            return self._find(packets_in_place(packets), versions)
        except NoctuleError:
            raise
        except Exception:
            if not self._has_logged:  # once: every list may fail
                LOG.exception("looking ahead failed; urgent alerts wait for their turn")
            self._has_logged = True
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
        features = self._scorer.config.strategy_features
        scored = score_batch(inputs.take(rows), models, strategy_features=features)
        return chosen[rows], scored

    def _bright(self, packets: Packets, surveys: Iterable[str]) -> NDArray[np.int64]:
        """Return which packets belong to an object of the surveys and are bright enough."""
        heads = self._heads.decode(packets)
        wanted = np.asarray(heads["object_id"].fill_null(0)) != 0
        wanted &= np.asarray(pc.is_in(heads["survey"], pa.array(list(surveys), pa.string())))
        sigmas = sigmas_of(heads)
        if self._priority.bright_sigma is not None:
            wanted &= sigmas >= self._priority.bright_sigma
        chosen = np.flatnonzero(wanted)
        if self._priority.young_days is None:  # then there is no other condition
            chosen = _brightest(chosen, sigmas[chosen], packets.starts.size)
        return chosen


def _brightest(
    rows: NDArray[np.int64], sigmas: NDArray[np.float64], n_looked_at: int
) -> NDArray[np.int64]:
    """Return the brightest of the rows, at most :data:`SHARE` of `n_looked_at`, in their order."""
    at_most = math.ceil(SHARE * n_looked_at)
    return np.sort(rows[np.argsort(-sigmas, kind="stable")[:at_most]])


def sigmas_of(alerts: pa.Table) -> NDArray[np.float64]:
    """Return each alert's ``|flux| / error``; -1 if either is missing or not usable."""
    flux, sigma = (
        alerts[name].cast(pa.float64()).fill_null(np.nan).to_numpy()
        for name in ("flux_njy", "sigma_njy")
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.abs(flux) / sigma
    return np.where(np.isfinite(ratio) & (sigma > 0), ratio, -1.0)


def _some(packets: Packets, members: NDArray[np.int64]) -> Packets:
    return Packets(packets.data, packets.starts[members], packets.ends[members])
