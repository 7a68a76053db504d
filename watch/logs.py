"""The format of the log: lines for people, or one JSON object per line for machines."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from types import TracebackType

Format = Literal["text", "json"]

LOG: Final = logging.getLogger("noctule")

_CHATTY: Final = ("py4j", "alembic", "httpx")
_TEXT: Final = "%(asctime)s %(name)s: %(message)s"
_KNOWN: Final = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}
"""Attributes that every record has; any other was given with ``extra``."""


class JsonFormatter(logging.Formatter):
    """One object per line: ``time``, ``level``, ``logger``, ``message``, and what ``extra`` gave."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; values that JSON cannot represent become text."""
        moment = datetime.fromtimestamp(record.created, UTC)
        said: dict[str, Any] = {
            "time": moment.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        said |= {name: value for name, value in vars(record).items() if name not in _KNOWN}
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        return json.dumps(said, default=str, ensure_ascii=False)


def configure(kind: Format, *, quiet: bool = False) -> None:
    """Send the log to standard error in this format, in place of whatever was configured before.

    In JSON, Python's warnings and an uncaught error are lines of the log too.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if kind == "json" else logging.Formatter(_TEXT))
    level = logging.WARNING if quiet else logging.INFO
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for chatty in _CHATTY:
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.captureWarnings(kind == "json")
    sys.excepthook = _log_uncaught if kind == "json" else sys.__excepthook__


def _log_uncaught(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    LOG.critical("%s", error, exc_info=(kind, error, traceback))


def is_json() -> bool:
    """Return whether the log is in JSON."""
    return any(isinstance(each.formatter, JsonFormatter) for each in logging.root.handlers)
