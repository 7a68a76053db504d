"""Builds the portal: a factory that uses no settings, environment or globals."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import sqlalchemy as sa
from bokeh.util.paths import static_path
from fastapi import FastAPI, Request, Response
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.staticfiles import StaticFiles

from portal import health, metrics, pages, rest
from portal.context import LightCurve, Portal
from portal.errors import ApiError, ErrorCode, add_error_handlers, answer
from portal.templating import STATIC, Pages
from store.clock import now_ms

MAX_BODY_BYTES: Final = 64 * 1024

# Pages load nothing from other hosts; Bokeh writes its own style elements.
_SECURITY: Final = {
    "Content-Security-Policy": (
        "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
        "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}


def create_app(
    engine: sa.Engine,
    *,
    light_curve: LightCurve,
    token: str | None,
    alias: str = "champion",
    clock: Callable[[], int] = now_ms,
) -> FastAPI:
    """The portal as an ASGI application.

    Parameters
    ----------
    engine
        The database, migrated.
    light_curve
        Returns an object's light curve (columns ``t_mjd_tai``, ``band``, ``flux_njy``,
        ``sigma_njy``, ``kind``), or None if none is stored.
    token
        Secret that clients must send to report labels or events; None refuses all of these.
    alias
        The alias whose model the pages show.
    clock
        Milliseconds since 1970 UTC.
    """
    app = FastAPI(
        title="noctule",
        openapi_url="/api/openapi.json",
        docs_url=None,  # the usual ones load their scripts from other hosts
        redoc_url=None,
    )
    app.state.portal = Portal(engine, light_curve, token, alias, clock)
    app.state.pages = Pages()
    add_error_handlers(app)
    app.include_router(rest.router)
    app.include_router(metrics.router)
    app.include_router(health.router)
    app.include_router(pages.router)
    app.mount("/static/bokeh", StaticFiles(directory=static_path()))
    app.mount("/static", StaticFiles(directory=STATIC))
    app.add_middleware(GZipMiddleware, minimum_size=1024, compresslevel=5)
    app.middleware("http")(_guard)
    return app


async def _guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    response = answer(request, _TOO_LARGE) if _is_large(request) else await call_next(request)
    response.headers.update(_SECURITY)
    if request.url.path.startswith("/static/") and "v" in request.query_params:
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
    return response


_TOO_LARGE: Final = ApiError(
    413, ErrorCode.TOO_LARGE, f"send at most {MAX_BODY_BYTES} bytes, and say how many they are"
)


def _is_large(request: Request) -> bool:
    """Whether the body is too large, or may be: a chunked one does not say how long it is."""
    length = request.headers.get("content-length", "0")
    return "transfer-encoding" in request.headers or int(length) > MAX_BODY_BYTES
