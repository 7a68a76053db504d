"""Every error has the form ``{"error": {"code": ..., "message": ..., "detail": ...}}``.

A browser that requests a page gets the same error as a page.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from enum import StrEnum
from http import HTTPStatus
from typing import Any, Final

import sqlalchemy as sa
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException

from lightcurves.errors import UnavailableError
from portal.templating import Pages
from store.database import QueryTimeoutError
from store.object_queries import SurveyNeededError

LOG: Final = logging.getLogger(__name__)


class ErrorCode(StrEnum):
    """The permanent error codes; docs/api.md lists them."""

    INVALID_REQUEST = "invalid_request"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    LABELS_DISABLED = "labels_disabled"
    NOT_FOUND = "not_found"
    UNKNOWN_OBJECT = "unknown_object"
    AMBIGUOUS_OBJECT = "ambiguous_object"
    UNKNOWN_REQUEST = "unknown_request"
    REQUEST_CLOSED = "request_closed"
    TOO_LARGE = "too_large"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    HTTP_ERROR = "http_error"
    QUERY_TIMEOUT = "query_timeout"
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal"


class ApiError(Exception):
    """An answer that is an error.

    Parameters
    ----------
    status
        The HTTP status.
    code, message, detail
        The content of the error.
    headers
        Further headers of the answer.
    """

    def __init__(
        self,
        status: int,
        code: ErrorCode,
        message: str,
        *,
        detail: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.detail = detail
        self.headers = headers


def unknown_object(object_id: int) -> ApiError:
    """404: no alert of this object has been read."""
    message = f"no alert of object {object_id} has been read"
    detail = {"object_id": str(object_id)}
    return ApiError(404, ErrorCode.UNKNOWN_OBJECT, message, detail=detail)


def ambiguous_object(object_id: int, surveys: list[str]) -> ApiError:
    """409: several surveys have an object of this id."""
    message = f"several surveys have an object {object_id}: add survey, one of {', '.join(surveys)}"
    detail = {"object_id": str(object_id), "surveys": surveys}
    return ApiError(409, ErrorCode.AMBIGUOUS_OBJECT, message, detail=detail)


def unavailable(message: str, code: ErrorCode = ErrorCode.UNAVAILABLE) -> ApiError:
    """503: wait and try again."""
    return ApiError(503, code, message, headers={"Retry-After": "5"})


def add_error_handlers(app: FastAPI) -> None:
    """Give every error of `app`, expected or not, the form of this module."""
    app.add_exception_handler(ApiError, answer)
    app.add_exception_handler(RequestValidationError, answer)
    app.add_exception_handler(HTTPException, answer)
    app.add_exception_handler(SurveyNeededError, answer)
    app.add_exception_handler(UnavailableError, answer)
    app.add_exception_handler(sa.exc.TimeoutError, answer)
    app.add_exception_handler(Exception, answer)


def answer(request: Request, error: Exception) -> Response:
    """The answer to a request that caused this error."""
    api_error = as_api_error(error)
    if _wants_page(request):
        return _page(request, api_error)
    envelope = {
        "error": {
            "code": str(api_error.code),
            "message": api_error.message,
            "detail": api_error.detail,
        }
    }
    return JSONResponse(envelope, api_error.status, headers=api_error.headers)


def as_api_error(error: Exception) -> ApiError:
    """What an exception means for the client; an unexpected one reveals no details."""
    match error:
        case ApiError():
            return error
        case RequestValidationError():
            return _invalid(error)
        case HTTPException():
            return _from_http(error)
        case SurveyNeededError():
            return _which_object(error)
        case UnavailableError() | sa.exc.TimeoutError():
            return _no_answer(error)
    message = "a fault of the portal; its log has the details"
    return ApiError(500, ErrorCode.INTERNAL, message)


def _which_object(error: SurveyNeededError) -> ApiError:
    if error.surveys:
        return ambiguous_object(error.object_id, error.surveys)
    return unknown_object(error.object_id)


def _no_answer(error: UnavailableError | sa.exc.TimeoutError) -> ApiError:
    if isinstance(error, sa.exc.TimeoutError):
        return unavailable("the database has no connection left: try again in a moment")
    late = isinstance(error, QueryTimeoutError)
    return unavailable(str(error), ErrorCode.QUERY_TIMEOUT if late else ErrorCode.UNAVAILABLE)


def _invalid(error: RequestValidationError) -> ApiError:
    detail = [
        {"field": _field_of(each["loc"]), "message": each["msg"].removeprefix("Value error, ")}
        for each in error.errors()
    ]
    first = f"{detail[0]['field']}: {detail[0]['message']}" if detail else "unreadable"
    message = f"the request is not valid: {first}"
    return ApiError(422, ErrorCode.INVALID_REQUEST, message, detail=detail)


def _field_of(location: tuple[str | int, ...]) -> str:
    """The field's name, without the part of the request that it belongs to."""
    return ".".join(str(part) for part in location[1:]) or str(location[0])


_HTTP_CODES: Final = {404: ErrorCode.NOT_FOUND, 405: ErrorCode.METHOD_NOT_ALLOWED}


def _from_http(error: HTTPException) -> ApiError:
    code = _HTTP_CODES.get(error.status_code, ErrorCode.HTTP_ERROR)
    return ApiError(error.status_code, code, str(error.detail), headers=error.headers)


def _wants_page(request: Request) -> bool:
    is_data = request.url.path.startswith(("/api", "/metrics", "/static"))
    return not is_data and "text/html" in request.headers.get("accept", "")


def _page(request: Request, error: ApiError) -> Response:
    pages: Pages = request.app.state.pages
    title = HTTPStatus(error.status).phrase
    html = pages.render("error.html", title=title, message=error.message, now_ms=None)
    return HTMLResponse(html, error.status, headers=error.headers)
