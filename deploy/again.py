"""The commands that score or read alerts again: rescore and backfill."""

from __future__ import annotations

import time
import uuid
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from active_learning.which_model import (
    alias_of,
    champions,
    model_of_name,
    refuse_other_survey,
)
from deploy.places import delta_folder, open_store, rescored_folder
from deploy.streaming import raise_failure
from deploy.terminal import counting_bar, problem_lines
from deploy.wiring import job_config, kafka_client, open_spark, scorer_config
from lightcurves.errors import ConfigurationError
from lightcurves.surveys import LSST, survey_named
from lightcurves.units import TAI_MINUS_UTC_S
from models.artifact import read_manifest
from store.database import reading
from store.rescored import ParquetFile, RescoredTable
from stream.access import check_access
from stream.audit import PartitionAudit, audit
from stream.backfill import DONE_FILE, PLAN_FILE, Plan, backfill_folder, plan_backfill
from stream.consumer import Watermarks
from stream.rescore import (
    KafkaPlace,
    Outcome,
    Rescoring,
    Times,
    rescore_delta,
    rescore_kafka,
    rescored_schema,
)
from stream.scoring import Scorer
from stream.versions import Versions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import sqlalchemy as sa
    from pyspark.sql import SparkSession

    from deploy.sections import Settings
    from store.rescored import Target
    from stream.report import BatchReport

_LOOK_S: Final = 0.2
_DAY_MS: Final = 86_400_000
_EPOCH_MJD: Final = 40_587
_MJDS: Final = (_EPOCH_MJD, 100_000)


def moment(text: str) -> int:
    """Return a time in Unix milliseconds.

    Parameters
    ----------
    text
        MJD (TAI, days), or an ISO date or time; local time unless it has a zone.

    Raises
    ------
    ConfigurationError
        It is neither.

    Examples
    --------
    >>> moment("2026-01-01T00:00:00Z")
    1767225600000
    >>> moment(f"{61041 + 37 / 86400}")
    1767225600000
    """
    try:
        mjd = float(text)
    except ValueError:
        mjd = float("nan")
    if _MJDS[0] <= mjd < _MJDS[1]:
        return round((mjd - _EPOCH_MJD) * _DAY_MS - TAI_MINUS_UTC_S * 1000)
    try:
        return round(datetime.fromisoformat(text).timestamp() * 1000)
    except ValueError:
        raise ConfigurationError(
            f"{text!r} is no time: give an MJD (61041.5) or an ISO time (2026-01-01, "
            "2026-01-01T12:00:00Z)"
        ) from None


def mjd_tai(text: str) -> float:
    """Return a time as MJD (TAI, days); `text` as :func:`moment` takes it, an MJD to the last bit."""
    milliseconds = moment(text)
    try:
        return float(text)
    except ValueError:
        return _EPOCH_MJD + (milliseconds + TAI_MINUS_UTC_S * 1000) / _DAY_MS


def times_of(since: str | None, until: str | None, by: str = "arrival") -> Times:
    """Return which alerts the options select.

    Raises
    ------
    ConfigurationError
        A time cannot be read, or the range is empty.
    """
    if by not in {"arrival", "observation"}:
        raise ConfigurationError(f"--by is arrival or observation, not {by!r}")
    read: Callable[[str], float] = moment if by == "arrival" else mjd_tai
    first, last = (None if text is None else read(text) for text in (since, until))
    if first is not None and last is not None and last <= first:
        raise ConfigurationError(f"--until {until} is not after --since {since}")
    return Times(first, last, "arrival" if by == "arrival" else "observation")


def version_for(settings: Settings, engine: sa.Engine, model: str, survey: str) -> str:
    """Return the version that is meant to score a survey's alerts.

    Parameters
    ----------
    settings, engine
        Where models and aliases are.
    model
        A version or an alias; the one of ``models.alias`` means the survey's own.
    survey
        Whose alerts.

    Raises
    ------
    ConfigurationError
        No such survey or model, or one that was trained for another survey.
    """
    survey = survey_named(survey).name
    name = alias_of(model, survey) if model == settings.models.alias else model
    folder = model_of_name(name, settings.models.folder, lambda: engine)
    refuse_other_survey(read_manifest(folder), survey)
    return folder.name


def run_rescore(
    settings: Settings,
    model: str,
    times: Times,
    *,
    source: str,
    survey: str = LSST.name,
    out: Path | None = None,
    recompute: bool = False,
) -> Outcome:
    """Score a survey's alerts again, into the table of rescored alerts or the file `out`.

    Raises
    ------
    ConfigurationError
        No such model, nothing to read, or options that `source` does not support.
    UnavailableError
        Kafka, the database or a file is unavailable: start it again, and it continues.
    """
    if source not in {"delta", "kafka"}:
        raise ConfigurationError(f"--from is delta or kafka, not {source!r}")
    if source == "kafka" and times.by != "arrival":
        raise ConfigurationError(
            "Kafka knows when alerts arrived: --by observation needs --from delta"
        )
    if source == "kafka" and recompute:
        raise ConfigurationError("--recompute is for --from delta: from Kafka all is computed")
    engine = open_store(settings)
    version = version_for(settings, engine, model, survey)
    with ExitStack() as stack:
        target: Target
        if out is None:
            target = RescoredTable(rescored_folder(settings), rescored_schema(), version, survey)
        else:
            target = stack.enter_context(ParquetFile(out, rescored_schema()))
        rescoring = Rescoring(
            engine,
            Scorer(scorer_config(settings)),
            version,
            target,
            f"rescore-{uuid.uuid4().hex}",
            stack.enter_context(counting_bar(f"scoring with {version}")),
            survey,
        )
        stack.callback(engine.dispose)
        if source == "delta":
            return rescore_delta(rescoring, delta_folder(settings), times, recompute=recompute)
        client = kafka_client(settings)
        check_access(client, settings.kafka.timeout_s)
        place = KafkaPlace(
            settings.kafka.alert_topics, client, settings.kafka.timeout_s, settings.stream.threads
        )
        return rescore_kafka(rescoring, place, times)


def outcome_lines(outcome: Outcome) -> Iterator[str]:
    """Yield lines that report the outcome of a re-scoring."""
    yield (
        f"{outcome.n_read} read: {outcome.n_scored} scored, "
        f"{_by_reason('not evaluated', outcome.not_evaluated)}, {outcome.n_present} there before, "
        f"{outcome.n_repeated} repeats, {_by_reason('rejected', outcome.rejected)}"
    )
    for packet in outcome.listed:
        where = f"{packet.topic}[{packet.partition}] offset {packet.offset}"
        yield f"rejected: {where}: {packet.reason}: {packet.detail}"
    if outcome.rejected.total() > len(outcome.listed):
        yield f"rejected: and {outcome.rejected.total() - len(outcome.listed)} more"
    for gone in outcome.gone:
        yield f"gone: {gone}; what the stream read of them is in Delta: --from delta"


def _by_reason(what: str, reasons: dict[str, int]) -> str:
    listed = ", ".join(f"{reason} {n}" for reason, n in sorted(reasons.items()))
    return f"{sum(reasons.values())} {what}" + (f" ({listed})" if listed else "")


# -- backfill --------------------------------------------------------------------------------------


def run_backfill(
    settings: Settings, model: str | None, times: Times, survey: str = LSST.name
) -> Backfilled:
    """Read into the live tables what no stream has read of a time range; see :mod:`stream.backfill`.

    `model` scores the alerts of `survey`, all others are scored by the champions of this moment.

    Raises
    ------
    ConfigurationError
        No such model, another process is running the same backfill, or the job cannot continue.
    UnavailableError
        Kafka or the database is unavailable: start it again, and it continues.
    """
    from deploy.java import find_java  # noqa: PLC0415 - before Spark is imported
    from stream.job import sole_user  # noqa: PLC0415 - Spark is slow to import

    find_java()
    engine = open_store(settings)
    asked = (settings.kafka.alert_topics, times.since, times.until, model or settings.models.alias)
    question = asked if survey == LSST.name else (*asked, survey)
    folder = backfill_folder(settings.state / "backfills", question)
    with sole_user(folder):
        plan = _plan(settings, engine, folder, model, times, survey)
        run_ids = []
        if plan.passes:
            spark = open_spark(settings, "backfill")
            try:
                with counting_bar(f"reading, scoring with {plan.version}") as progress:
                    run_ids = _run_plan(spark, settings, folder, plan, progress)
            finally:
                spark.stop()
        (folder / DONE_FILE).touch()
    with reading(engine) as connection:
        parts = audit(connection, since_ms=plan.planned_ms)
    return Backfilled(plan, [part for part in parts if part.run_id in run_ids])


class Backfilled(NamedTuple):
    """The plan of a backfill, and the audit of its runs."""

    plan: Plan
    audits: list[PartitionAudit]


def _plan(
    settings: Settings,
    engine: sa.Engine,
    folder: Path,
    model: str | None,
    times: Times,
    survey: str = LSST.name,
) -> Plan:
    """Return the plan that `folder` has, or make it one."""
    if (folder / PLAN_FILE).is_file():
        return Plan.read(folder)
    client, kafka = kafka_client(settings), settings.kafka
    check_access(client, kafka.timeout_s)
    marks = Watermarks(list(kafka.alert_topics), client, kafka.timeout_s)
    try:
        versions = _versions(settings, engine, model, survey)
        plan = plan_backfill(engine, marks, times, str(versions))
    finally:
        marks.close()
    plan.write(folder)
    return plan


def _versions(settings: Settings, engine: sa.Engine, model: str | None, survey: str) -> Versions:
    """Return every survey's champion, of `survey` the model that is given."""
    with reading(engine) as connection:
        by_survey = champions(connection, settings.models.alias)
    named = {key: str(row["model_version"]) for key, row in by_survey.items()}
    if model is not None or not named:
        name = model or settings.models.alias  # where nothing is promoted, this says so
        named[survey] = version_for(settings, engine, name, survey)
    return Versions(named)


def _run_plan(
    spark: SparkSession,
    settings: Settings,
    folder: Path,
    plan: Plan,
    progress: Callable[[int, int], None],
) -> list[str]:
    """Run the job over each pass of the plan; return the ids of the runs."""
    from stream.job import run_id_of, start  # noqa: PLC0415 - Spark is slow to import

    total = sum(end - first for one in plan.passes for first, end in one.values())
    done = 0

    def on_batch(report: BatchReport) -> None:
        nonlocal done
        done += report.counts.n_read + report.counts.n_lost
        progress(min(done, total), total)

    live = job_config(settings)
    run_ids = []
    for number, offsets in enumerate(plan.passes):
        checkpoint = folder / str(number)
        run_ids.append(run_id_of(checkpoint))
        config = replace(
            live,
            checkpoint=checkpoint,
            worker=replace(live.worker, run_id=run_ids[-1]),
            # What is in the past cannot be observed any more.
            policy=replace(live.policy, nightly_budget=0),
            lost="skip",
            offsets=offsets,
            version=plan.version,
        )
        query = start(spark, config, once=True, on_batch=on_batch)
        while query.isActive:
            time.sleep(_LOOK_S)
        raise_failure(query, config, "backfill")
    return run_ids


def backfill_lines(outcome: Backfilled) -> Iterator[str]:
    """Yield lines that report the outcome of a backfill, without the audit."""
    n = sum(end - first for one in outcome.plan.passes for first, end in one.values())
    yield f"{n} offsets had been read by no stream" + (
        f"; {outcome.plan.n_waiting} more wait for it: noctule stream"
        if outcome.plan.n_waiting
        else ""
    )
    for gone in outcome.plan.gone:
        yield f"gone: {gone}"
    yield from problem_lines(outcome.audits)
