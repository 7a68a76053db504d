"""The permanent reason codes: why a packet was rejected, why a value was not evaluated.

A code is never renamed or reused. ``docs/reasons.md`` lists them; a test keeps both equal.
"""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lightcurves.surveys import SURVEYS
from lightcurves.surveys.declare import Framing

if TYPE_CHECKING:
    from numpy.typing import NDArray


class RejectReason(StrEnum):
    """Why a packet could not be read. Its original bytes are stored with the code."""

    EMPTY_MESSAGE = "empty_message"
    BAD_FRAME = "bad_frame"
    CONTAINER_MESSAGE = "container_message"
    BAD_CONTAINER = "bad_container"
    UNREADABLE_FILE = "unreadable_file"
    UNKNOWN_SCHEMA = "unknown_schema"
    UNUSABLE_SCHEMA = "unusable_schema"
    TRUNCATED = "truncated"
    TRAILING_BYTES = "trailing_bytes"
    BAD_VARINT = "bad_varint"
    BAD_LENGTH = "bad_length"
    BAD_UNION_BRANCH = "bad_union_branch"
    TOO_MANY_ITEMS = "too_many_items"
    BAD_TEXT = "bad_text"
    BAD_SYMBOL = "bad_symbol"
    TOO_LARGE = "too_large"
    NO_TIME = "no_time"
    NO_ID = "no_id"
    FAILED = "failed"


class NotEvaluated(StrEnum):
    """Why an alert that could be read has no score, or a feature no value."""

    SOLAR_SYSTEM_OBJECT = "solar_system_object"
    NO_OBJECT = "no_object"
    NO_FINITE_FLUX = "no_finite_flux"
    TOO_FEW_POINTS = "too_few_points"
    NOT_IN_BAND = "not_in_band"
    NO_VARIATION = "no_variation"
    NOT_PROVIDED = "not_provided"
    UNKNOWN_BAND = "unknown_band"
    NO_FIT = "no_fit"
    NO_PEAK = "no_peak"
    LIGHT_CURVE_NOT_KEPT = "light_curve_not_kept"
    NO_MODEL_FOR_SURVEY = "no_model_for_survey"


def is_given(reasons: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which rows have a reason."""
    return np.fromiter((reason is not None for reason in reasons), np.bool_, len(reasons))


_SENDERS: Final = " and ".join(
    survey.name for survey in SURVEYS.values() if survey.framing is Framing.CONTAINER
)

DESCRIPTIONS: Final[dict[StrEnum, str]] = {
    RejectReason.EMPTY_MESSAGE: "The message has no bytes.",
    RejectReason.BAD_FRAME: "Not a Confluent frame: its first byte is not 0, or it has fewer than 5 bytes.",
    RejectReason.CONTAINER_MESSAGE: f"The message is a whole Avro container file, as {_SENDERS} send "
    "them; only Confluent frames are read from messages.",
    RejectReason.BAD_CONTAINER: "An Avro container file in a folder is truncated or broken.",
    RejectReason.UNREADABLE_FILE: "A file in a folder has disappeared, or its permissions forbid reading it.",
    RejectReason.UNKNOWN_SCHEMA: "The source of schemas has no schema with the id in the frame.",
    RejectReason.UNUSABLE_SCHEMA: "The schema is known but cannot be used: `noctule explain` says why.",
    RejectReason.TRUNCATED: "The packet ends in the middle of a value.",
    RejectReason.TRAILING_BYTES: "Bytes are left over after the last field.",
    RejectReason.BAD_VARINT: "An integer is longer than 10 bytes or does not fit into 64 bits.",
    RejectReason.BAD_LENGTH: "A string, bytes or block length is negative.",
    RejectReason.BAD_UNION_BRANCH: "A union's branch number is not in the schema.",
    RejectReason.TOO_MANY_ITEMS: "An array or map claims more items than its bytes could contain.",
    RejectReason.BAD_TEXT: "A string is not UTF-8.",
    RejectReason.BAD_SYMBOL: "An enum's number is not that of any of its symbols.",
    RejectReason.TOO_LARGE: "The message is larger than stream.max_packet_bytes.",
    RejectReason.NO_TIME: "The alert's own time is null or not finite.",
    RejectReason.NO_ID: "The alert has no diaSourceId.",
    RejectReason.FAILED: "noctule itself failed on this packet alone: please report it.",
    NotEvaluated.SOLAR_SYSTEM_OBJECT: "The alert belongs to a solar system object.",
    NotEvaluated.NO_OBJECT: "The alert belongs to no object.",
    NotEvaluated.NO_FINITE_FLUX: "No point of the light curve has a finite flux and a positive error.",
    NotEvaluated.TOO_FEW_POINTS: "Fewer points than the quantity needs.",
    NotEvaluated.NOT_IN_BAND: "No point, or too few, in a band that the quantity needs.",
    NotEvaluated.NO_VARIATION: "All values are equal where the quantity needs a spread.",
    NotEvaluated.NOT_PROVIDED: "An input that the quantity needs, such as the host redshift, is not known.",
    NotEvaluated.UNKNOWN_BAND: "No point has a band that its survey declares.",
    NotEvaluated.NO_PEAK: "No single peak to fit: no point of 5 sigma, many peaks, or too many points.",
    NotEvaluated.LIGHT_CURVE_NOT_KEPT: "`noctule maintain` has emptied the light curve, and the stored "
    "features are not those of the model.",
    NotEvaluated.NO_MODEL_FOR_SURVEY: "No model is promoted for the alert's survey; another survey's model "
    "never scores it.",
    NotEvaluated.NO_FIT: "The points do not determine the quantity: no minimum, or noise explains all.",
}


def page() -> str:
    """Return ``docs/reasons.md``: ``python -m lightcurves.reasons > docs/reasons.md``."""
    lines = [
        "# Reason codes",
        "",
        "Generated by `python -m lightcurves.reasons > docs/reasons.md`; a test compares the two. A code is",
        "never renamed or reused.",
    ]
    for title, codes in (
        ("Why a packet is rejected", RejectReason),
        ("Why a value is null", NotEvaluated),
    ):
        lines += ["", f"## {title}", "", "| code | meaning |", "|---|---|"]
        lines += [f"| `{code}` | {DESCRIPTIONS[code]} |" for code in codes]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(page() + "\n")
