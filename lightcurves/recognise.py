"""Whose alerts a schema describes: decided by its fields, whatever its name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightcurves.errors import ConfigurationError
from lightcurves.plan import fields_of
from lightcurves.surveys import SURVEYS

if TYPE_CHECKING:
    from lightcurves.surveys.declare import Survey


def survey_of(schema: Any) -> Survey:
    """Return the survey whose required fields a writer's schema has.

    If it has those of several surveys, the one that requires the most fields is returned.

    Raises
    ------
    ConfigurationError
        The schema cannot be read, has the required fields of no survey, or of two that require equally many.
    """
    fields = fields_of(schema)
    lacking = {
        survey.name: [path for path in survey.required if path not in fields]
        for survey in SURVEYS.values()
    }
    matching = [survey for survey in SURVEYS.values() if not lacking[survey.name]]
    if not matching:
        raise ConfigurationError(_unknown(lacking))
    most = max(len(survey.required) for survey in matching)
    best = [survey for survey in matching if len(survey.required) == most]
    if len(best) > 1:
        names = " and ".join(survey.name for survey in best)
        raise ConfigurationError(f"the schema has the fields of {names}: its survey is ambiguous")
    return best[0]


def _unknown(lacking: dict[str, list[str]]) -> str:
    share = {name: len(paths) / len(SURVEYS[name].required) for name, paths in lacking.items()}
    nearest = min(share, key=lambda name: share[name])
    if share[nearest] == 1:
        return f"no survey's alert: it has no field that {', '.join(lacking)} need"
    return f"no survey's alert: nearest is {nearest}, which needs {', '.join(lacking[nearest])}"
