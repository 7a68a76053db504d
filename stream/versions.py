"""The model version that scores each survey's alerts, as one text, which is checkpointed with a batch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from lightcurves.errors import ConfigurationError
from lightcurves.surveys import LSST

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa


@dataclass(frozen=True)
class Versions:
    """Model versions by survey; at most one each.

    Their text is ``VERSION,ztf=VERSION``: LSST's version comes first and without a name, so checkpoints from
    before there were several versions keep their meaning. Surveys without a version are left out.

    Examples
    --------
    >>> versions = Versions.parse("1fd0a641d73b,ztf=88e1c0ab2f90")
    >>> versions.of("ztf"), versions.of("winter")
    ('88e1c0ab2f90', None)
    >>> str(versions), str(Versions({"ztf": "88e1c0ab2f90"}))
    ('1fd0a641d73b,ztf=88e1c0ab2f90', 'ztf=88e1c0ab2f90')
    """

    by_survey: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what ``str`` wrote.

        Raises
        ------
        ConfigurationError
            It is no such text.
        """
        by_survey: dict[str, str] = {}
        for part in text.split(",") if text else ():
            name, named, version = part.rpartition("=")
            survey = name if named else LSST.name
            if not (survey and version) or survey in by_survey:
                raise ConfigurationError(f"{text!r} does not say which model scores which survey")
            by_survey[survey] = version
        return cls(by_survey)

    @classmethod
    def of_rows(cls, rows: pa.Table) -> Self:
        """Return which versions scored `rows`, by their columns ``survey`` and ``model_version``."""
        pairs = rows.select(["survey", "model_version"]).drop_null()
        distinct = pairs.group_by(pairs.column_names).aggregate([]).to_pylist()
        return cls({pair["survey"]: pair["model_version"] for pair in distinct})

    def __str__(self) -> str:
        """Return the text that :meth:`parse` reads; equal versions have equal texts."""
        named = dict(self.by_survey)
        ours = named.pop(LSST.name, None)
        others = [f"{survey}={version}" for survey, version in sorted(named.items())]
        return ",".join(others if ours is None else [ours, *others])

    def of(self, survey: str) -> str | None:
        """Return the version that scores the survey's alerts; None if none does."""
        return self.by_survey.get(survey)
