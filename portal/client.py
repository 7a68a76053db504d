"""The portal, from Python: ``noctule.Client``."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self

import httpx

from lightcurves.errors import NoctuleError, UnavailableError
from portal.shapes import ID_FIELDS, Order
from store.requests import Report

Json = dict[str, Any]

_SERVICE_UNAVAILABLE: Final = 503


class PortalError(NoctuleError):
    """The portal answered with an error.

    Parameters
    ----------
    status
        The HTTP status.
    code
        A permanent code, such as ``unknown_object``; docs/api.md lists them.
    message
        A sentence for people.
    detail
        Further facts; for an invalid request, the fields and what is wrong with each.
    """

    def __init__(self, status: int, code: str, message: str, detail: Any = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.detail = detail


class Client:
    """A client of the portal; identifiers are integers, nulls are None.

    Parameters
    ----------
    url
        The portal's address, such as ``http://127.0.0.1:8765``.
    token
        The portal's secret for reporting labels and events.
    timeout_s
        How long an answer may take, in seconds.

    Raises
    ------
    UnavailableError
        From any method: the portal, or its database, does not answer.
    PortalError
        From any method: the portal answered with an error.

    Examples
    --------
    >>> with Client("http://127.0.0.1:8765") as portal:  # doctest: +SKIP
    ...     for each in portal.objects(order="strangest", limit=3):
    ...         print(each["object_id"], each["class_name"], each["novelty"])
    """

    def __init__(self, url: str, token: str | None = None, timeout_s: float = 10.0) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._url = url.rstrip("/")
        self._http = httpx.Client(
            base_url=self._url, headers=headers, timeout=timeout_s, follow_redirects=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def objects(
        self, order: Order = "newest", *, limit: int = 50, class_id: int | None = None
    ) -> list[Json]:
        """Objects: the newest, the strangest or the most uncertain first."""
        return self._list("/api/objects", order=order, limit=limit, class_id=class_id)

    def object(self, object_id: int, survey: str | None = None) -> Json:
        """One object, its classes, history of alerts, light curve per band, labels and requests.

        `survey` is required if several surveys have an object of this id.
        """
        return self._one(f"/api/objects/{object_id}", survey=survey)

    def cone(
        self, ra_deg: float, dec_deg: float, radius_arcsec: float, *, limit: int = 100
    ) -> list[Json]:
        """Objects around a position (degrees, ICRS), the nearest first."""
        where = {"ra_deg": ra_deg, "dec_deg": dec_deg, "radius_arcsec": radius_arcsec}
        return self._list("/api/cone", **where, limit=limit)

    def queue(
        self, *, only_open: bool = True, limit: int = 100, program: str | None = None
    ) -> list[Json]:
        """Requests for spectra, of one program or all, the most useful first."""
        return self._list("/api/queue", open=only_open, limit=limit, program=program)

    def report_event(
        self, request_id: int, event: Report, who: str, *, why: str | None = None
    ) -> Json:
        """Add an event to a request; returns the event as it was recorded. Needs the token."""
        report = _without_none({"event": event, "who": who, "why": why})
        recorded: Json = self._ask("POST", f"/api/queue/{request_id}/events", json=report)
        return recorded

    def report_label(
        self,
        object_id: int,
        class_id: int,
        reporter: str,
        *,
        survey: str | None = None,
        instrument: str | None = None,
        confidence: float | None = None,
        redshift: float | None = None,
        observed_mjd_tai: float | None = None,
        comment: str | None = None,
        request_id: int | None = None,
    ) -> Json:
        """Add a label to the ledger; returns it as it was recorded. Needs the token."""
        report = {
            "object_id": str(object_id),
            "survey": survey,
            "class_id": class_id,
            "reporter": reporter,
            "instrument": instrument,
            "confidence": confidence,
            "redshift": redshift,
            "observed_mjd_tai": observed_mjd_tai,
            "comment": comment,
            "request_id": request_id,
        }
        recorded: Json = self._ask("POST", "/api/labels", json=_without_none(report))
        return recorded

    def models(self) -> Json:
        """Model versions, promotions, trials, the champion and its score so far."""
        return self._one("/api/models")

    def status(self) -> Json:
        """Counts of what was read, by outcome."""
        return self._one("/api/status")

    def health(self) -> Json:
        """``{"status": "ok"}`` if the portal and its database answer."""
        return self._one("/api/health")

    def _list(self, path: str, **query: Any) -> list[Json]:
        rows: list[Json] = self._ask("GET", path, params=_without_none(query))
        return rows

    def _one(self, path: str, **query: Any) -> Json:
        answer: Json = self._ask("GET", path, params=_without_none(query))
        return answer

    def _ask(self, method: str, path: str, **options: Any) -> Any:
        try:
            response = self._http.request(method, path, **options)
        except httpx.TransportError as error:
            raise UnavailableError("portal", self._hint(error)) from error
        if response.is_success:
            return with_integers(_json_of(response))
        raise _refusal(response)

    def _hint(self, error: Exception) -> str:
        what = str(error) or type(error).__name__
        return f"no answer from {self._url} ({what}): start it with `noctule portal`"


def _refusal(response: httpx.Response) -> NoctuleError:
    body = _json_of(response)
    error = body.get("error", {}) if isinstance(body, dict) else {}
    message = str(error.get("message", f"no portal answers at {response.url}"))
    if response.status_code == _SERVICE_UNAVAILABLE:
        return UnavailableError("portal", message)
    code = str(error.get("code", "http_error"))
    return PortalError(response.status_code, code, message, error.get("detail"))


def _json_of(response: httpx.Response) -> Any:
    """The body, or None if it is not JSON: something other than a portal answers there."""
    try:
        return response.json()
    except ValueError:
        return None


def _without_none(values: Mapping[str, Any]) -> Json:
    return {name: value for name, value in values.items() if value is not None}


def with_integers(value: Any) -> Any:
    """The same with the identifiers as integers; class_id keys of probabilities too.

    Examples
    --------
    >>> with_integers([{"object_id": "9007199254740993", "probabilities": {"111": 1.0}}])
    [{'object_id': 9007199254740993, 'probabilities': {111: 1.0}}]
    """
    if isinstance(value, list):
        return [with_integers(each) for each in value]
    if isinstance(value, dict):
        return {key: _with_integer(key, each) for key, each in value.items()}
    return value


def _with_integer(key: str, value: Any) -> Any:
    if key in ID_FIELDS and isinstance(value, str):
        return int(value)
    if key == "probabilities" and isinstance(value, dict):
        return {int(class_id): p for class_id, p in value.items()}
    return with_integers(value)
