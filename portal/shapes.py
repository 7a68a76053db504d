"""The JSON of the REST interface: its answers, and the labels and events that clients send."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    create_model,
)

from lightcurves.taxonomy import CLASS_NAMES
from models.record import RECORD, Kind, Null
from store import requests

INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1

ID_FIELDS: Final = frozenset(
    {
        "object_id",
        "dia_source_id",
        "last_dia_source_id",
        "request_id",
        "event_id",
        "label_id",
        "promotion_id",
        "undoes",
        "trial_id",
    }
)
"""Names of the fields that are 64-bit identifiers: strings in JSON, whose numbers are doubles."""

Id = Annotated[int, PlainSerializer(str, return_type=str)]
InputId = Annotated[int, Field(ge=INT64_MIN, le=INT64_MAX)]
Order = Literal["newest", "strangest", "uncertain"]


def _without_nul(text: str) -> str:
    if "\0" in text:  # PostgreSQL's text cannot hold it
        raise ValueError("a text must not contain the character NUL")
    return text


Text = Annotated[str, AfterValidator(_without_nul)]
Name = Annotated[Text, Field(min_length=1, max_length=200)]


def _known_class(class_id: int) -> int:
    if class_id not in CLASS_NAMES:
        known = ", ".join(map(str, CLASS_NAMES))
        raise ValueError(f"is not a class of the taxonomy: use one of {known}")
    return class_id


class Shape(BaseModel):
    """Made from a row of the database; columns that are not named here are not sent."""

    model_config = ConfigDict(extra="ignore", ser_json_inf_nan="null")


class ClassProbability(Shape):
    """One class of a score."""

    class_id: int
    class_name: str
    probability: float
    in_prediction_set: bool


class ObjectSummary(Shape):
    """An object with the values of its newest alert; if the score is null, `reason` says why."""

    object_id: Id
    survey: str
    ra_deg: float
    dec_deg: float
    first_mjd_tai: float
    last_mjd_tai: float
    n_alerts: int
    last_dia_source_id: Id
    days_since_first_detection: float | None
    band: str | None
    flux_njy: float | None
    sigma_njy: float | None
    class_id: int | None
    class_name: str | None
    probability: float | None
    entropy: float | None
    novelty: float | None
    novelty_far: float | None
    model_version: str | None
    reason: str | None
    label_class_id: int | None
    label_class_name: str | None


class ObjectNear(ObjectSummary):
    """An object and its distance from the centre of the cone."""

    separation_arcsec: float


class AlertBase(Shape):
    """One alert of an object: its measurement and its score."""

    t_mjd_tai: float
    days_since_first_detection: float | None
    class_name: str | None
    probabilities: dict[int, float] | None
    prediction_set: list[int] | None


_OF_OBJECT: Final = {"object_id", "ss_object_id", "arrival_ms", "ra_deg", "dec_deg"}
"""Fields that the alerts of an object do not repeat."""
_PYTHON: Final[dict[Kind, Any]] = {
    Kind.INT64: int,
    Kind.INT32: int,
    Kind.FLOAT64: float,
    Kind.TEXT: str,
}


def _alert() -> type[AlertBase]:
    """Return the fields of an alert that code uses, and every other field of the record."""
    rest: dict[str, Any] = {}
    for f in RECORD:
        if f.name not in AlertBase.model_fields and f.name not in _OF_OBJECT:
            kind = Id if f.name in ID_FIELDS else _PYTHON[f.kind]
            rest[f.name] = (kind if f.null is Null.NEVER else kind | None, ...)
    return create_model("Alert", __base__=AlertBase, __doc__=AlertBase.__doc__, **rest)


if TYPE_CHECKING:
    Alert = AlertBase
else:
    Alert = _alert()


class BandCurve(Shape):
    """The light curve in one band: arrays of equal length, in order of time."""

    t_mjd_tai: list[float]
    flux_njy: list[float | None]
    sigma_njy: list[float | None]
    kind: list[str]


class Label(Shape):
    """A label of the ledger; `current` if it is the one that counts for its object."""

    label_id: Id
    survey: str
    object_id: Id
    class_id: int
    class_name: str
    reporter: str
    instrument: str | None
    confidence: float | None
    redshift: float | None
    observed_mjd_tai: float | None
    comment: str | None
    request_id: Id | None
    reported_ms: int
    current: bool


class LabelRequest(Shape):
    """A request for a spectrum, its state, and who reported that; `answer` is the class that came back."""

    request_id: Id
    survey: str
    object_id: Id
    program: str
    dia_source_id: Id
    night: int
    strategy: str
    utility: float
    why: str
    requested_ms: int
    model_version: str
    ra_deg: float
    dec_deg: float
    band: str | None
    flux_njy: float | None
    t_mjd_tai: float
    state: str
    state_who: str
    state_ms: int
    state_why: str | None
    answered: bool
    answer: int | None
    answer_name: str | None


class RequestEvent(Shape):
    """What became of a request."""

    event_id: Id
    request_id: Id
    event: str
    who: str
    at_ms: int
    why: str | None


class RequestDetail(LabelRequest):
    """A request with its events, the oldest first."""

    events: list[RequestEvent]


class ObjectDetail(Shape):
    """Everything about one object."""

    object: ObjectSummary
    classes: list[ClassProbability]
    history: list[Alert]
    light_curve: dict[str, BandCurve] | None
    labels: list[Label]
    request: RequestDetail | None
    requests: list[RequestDetail]


class ModelVersion(Shape):
    """A registered model."""

    model_version: str
    created_ms: int
    feature_digest: str
    training_digest: str
    n_training_objects: int
    class_ids: list[int]
    metrics: dict[str, Any]


class Promotion(Shape):
    """A promotion or rollback."""

    promotion_id: Id
    alias: str
    model_version: str
    previous_version: str | None
    promoted_ms: int
    reason: str
    gate: dict[str, Any] | None
    undoes: Id | None


class Trial(Shape):
    """A comparison of a challenger with the champion."""

    trial_id: Id
    champion_version: str
    challenger_version: str
    tried_ms: int
    n_labels: int
    promoted: bool
    gate: dict[str, Any]


class ScoreSoFar(Shape):
    """How good the champion's scores before the labels were; null without labels."""

    n_labels: int
    accuracy: float | None
    log_loss: float | None


class Models(Shape):
    """The models, and which one each survey has; `champion` is LSST's."""

    alias: str
    champion: str | None
    champions: dict[str, str | None]
    score_so_far: ScoreSoFar | None
    versions: list[ModelVersion]
    promotions: list[Promotion]
    trials: list[Trial]


class Status(Shape):
    """Counts of everything that was read, by outcome."""

    alerts: int
    scored: int
    not_evaluated: dict[str, int]
    rejected: dict[str, int]
    duplicates: int
    queue_open: int
    labels: int
    champion: str | None
    champions: dict[str, str | None]


class Health(Shape):
    """The portal and its database answer."""

    status: Literal["ok"] = "ok"


class Error(Shape):
    """What went wrong: a permanent code, a sentence, and further facts."""

    code: str
    message: str
    detail: Any = None


class ErrorEnvelope(Shape):
    """The body of every answer that is an error."""

    error: Error


class Report(BaseModel):
    """What a client sends; a field that is not named here is an error."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True, allow_inf_nan=False)


class EventReport(Report):
    """An event of a request, as the client sends it."""

    event: requests.Report
    who: Name
    why: Annotated[Text, Field(max_length=2000)] | None = None


class LabelReport(Report):
    """A label as the client sends it; `object_id` may be a string, as in every answer."""

    object_id: InputId
    survey: Name | None = None
    class_id: Annotated[int, AfterValidator(_known_class)]
    reporter: Name
    instrument: Annotated[Text, Field(max_length=200)] | None = None
    confidence: Annotated[float, Field(ge=0, le=1)] | None = None
    redshift: Annotated[float, Field(ge=-0.1, le=30)] | None = None
    observed_mjd_tai: Annotated[float, Field(ge=0, le=200_000)] | None = None
    comment: Annotated[Text, Field(max_length=2000)] | None = None
    request_id: InputId | None = None
