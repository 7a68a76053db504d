"""Commands for operators: score or read alerts again, maintain the tables, audit, show the status."""

from __future__ import annotations

import logging
import sys
import threading
import time
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from deploy.given import GIVEN, given_settings
from deploy.settings import check_settings, redacted, settings_digest
from lightcurves.errors import NoctuleError, UnavailableError
from watch import logs

if TYPE_CHECKING:
    from deploy.sections import Settings
    from store.maintenance import Saved
    from stream.audit import PartitionAudit

LOG: Final = logging.getLogger("noctule")


def rescore(
    model: Annotated[str, typer.Option(help="Version or alias of the model to score with.")],
    survey: Annotated[
        str,
        typer.Option(help="Survey whose alerts are scored; an alias means this survey's model."),
    ] = "lsst",
    since: Annotated[
        str | None,
        typer.Option(
            help="Only alerts from this time on: ISO (local time unless it has an offset) or MJD (TAI)."
        ),
    ] = None,
    until: Annotated[str | None, typer.Option(help="Only alerts before this time.")] = None,
    by: Annotated[
        str,
        typer.Option(
            help="Which time --since and --until refer to: arrival (in Kafka) or observation."
        ),
    ] = "arrival",
    source: Annotated[
        str,
        typer.Option(
            "--from",
            help="Where to read alerts: delta (what the stream stored) or kafka (the packets).",
        ),
    ] = "delta",
    out: Annotated[
        Path | None, typer.Option(help="Parquet file to write, instead of the table rescored.")
    ] = None,
    recompute: Annotated[
        bool,
        typer.Option(
            "--recompute",
            help="Compute features from the stored light curves, instead of using the stored features.",
        ),
    ] = False,
) -> None:
    """Score a survey's alerts again with a chosen model; the stream may run meanwhile, and its scores stay.

    Rows go to the Delta table 'rescored', one per alert and model version. Exits with code 1 if Kafka no
    longer has some of these alerts. May be killed and started again at any time.
    """
    from deploy.again import outcome_lines, run_rescore, times_of

    settings = given_settings()
    times = times_of(since, until, by)
    outcome = run_rescore(
        settings, model, times, source=source, survey=survey, out=out, recompute=recompute
    )
    for line in outcome_lines(outcome):
        typer.echo(line)
    if outcome.gone:
        raise typer.Exit(1)


def backfill(
    since: Annotated[
        str | None,
        typer.Option(
            help="Only what arrived in Kafka from this time on: ISO (local time unless it has an offset) or "
            "MJD (TAI)."
        ),
    ] = None,
    until: Annotated[str | None, typer.Option(help="Only what arrived before this time.")] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Version or alias of the model to score with; by default the champion."),
    ] = None,
    survey: Annotated[
        str,
        typer.Option(
            help="Survey whose alerts --model scores; other surveys' champions score theirs."
        ),
    ] = "lsst",
) -> None:
    """Read into the live tables those alerts that no stream has read; a stream may run meanwhile.

    Rows that are in the tables stay as they are, and what waits for the stream is left to it. No spectra
    are requested. Exits with code 1 if Kafka no longer has some offsets, or if the audit finds a gap. May
    be killed and started again at any time.
    """
    from deploy.again import backfill_lines, run_backfill, times_of

    outcome = run_backfill(given_settings(), model, times_of(since, until), survey)
    if outcome.audits:
        _print_audit(outcome.audits)
    for line in backfill_lines(outcome):
        typer.echo(line)
    if outcome.plan.gone or any(part.problems for part in outcome.audits):
        raise typer.Exit(1)


def maintain(
    every: Annotated[
        float | None,
        typer.Option(min=1.0, help="Repeat every this many seconds; by default run once."),
    ] = None,
) -> None:
    """Keep the tables small, also while the stream runs: join files, empty old light curves, clean up."""
    from deploy.terminal import stop_event

    settings = given_settings()
    stop = stop_event() if every else threading.Event()
    while True:
        try:
            _maintain_once(settings, stop)
        except UnavailableError as error:
            if not every:
                raise
            LOG.warning("%s; trying again in %.0f s", error, every)
        if not every or stop.wait(every):
            return


def _maintain_once(settings: Settings, stop: threading.Event) -> None:
    from deploy.places import delta_folder, open_store, rescored_folder
    from store.maintenance import Retention, maintain, maintain_rescored

    retention = Retention(**settings.maintenance.model_dump())
    live, again = delta_folder(settings), rescored_folder(settings)
    engine = open_store(settings)
    try:
        saved = maintain(engine, live, retention, partial(_log_step, ""), stop.is_set)
        _report_saved(saved, live.name, "")
    finally:
        engine.dispose()
    prefix = f"{again.name}: "
    of_again = maintain_rescored(again, retention, partial(_log_step, prefix), stop.is_set)
    if of_again is not None:
        _report_saved(of_again, again.name, prefix)


def _log_step(prefix: str, line: str, /, **fields: object) -> None:
    LOG.info("%s%s", prefix, line, extra=fields)


def _report_saved(saved: Saved, table: str, prefix: str) -> None:
    """Report a round of maintenance: as a log record if the log is in JSON, else as a line of text."""
    from deploy.terminal import CONSOLE

    (files, left), (n_bytes, bytes_left) = saved.files, saved.n_bytes
    text = (
        f"{files} files of {n_bytes / 1e6:.1f} MB are {left} of {bytes_left / 1e6:.1f} MB; "
        f"{saved.n_emptied} light curves emptied; {saved.n_vacuumed} files deleted, "
        f"{saved.vacuumed_bytes / 1e6:.1f} MB; {saved.n_log_files} of the log"
    )
    if logs.is_json():
        _log_step(prefix, text, table=table, step="done", **saved.fields())
    else:
        CONSOLE.print(f"{prefix}{text}")


def audit(
    since: Annotated[
        datetime | None, typer.Option(help="Only batches committed from this time on (local time).")
    ] = None,
    until: Annotated[
        datetime | None, typer.Option(help="Only batches committed before this time.")
    ] = None,
) -> None:
    """Check that every alert is accounted for; exits with code 1 if not."""
    from deploy.terminal import problem_lines

    parts = run_audit(given_settings(), _ms(since) or 0, _ms(until))
    _print_audit(parts)
    problems = list(problem_lines(parts))
    for line in problems:
        typer.echo(line)
    if problems:
        raise typer.Exit(1)


def _ms(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp() * 1000)


def run_audit(settings: Settings, since_ms: int, until_ms: int | None) -> list[PartitionAudit]:
    """Audit the tables, and the topics too if Kafka answers; see :func:`stream.audit.audit`."""
    from deploy.places import open_store
    from deploy.terminal import CONSOLE
    from deploy.wiring import check_kafka
    from store.database import reading
    from stream.audit import audit

    ends = None
    if settings.kafka.bootstrap_servers is not None:
        try:
            ends = check_kafka(settings)
        except NoctuleError as error:
            CONSOLE.print(f"[yellow]{error}; auditing the tables alone[/]")
    with reading(open_store(settings)) as connection:
        return audit(connection, ends, since_ms=since_ms, until_ms=until_ms)


def _print_audit(parts: list[PartitionAudit]) -> None:
    from rich.console import Console

    from deploy.terminal import audit_table

    Console(width=None if sys.stdout.isatty() else 160).print(audit_table(parts))


def check_config() -> None:
    """Check the settings: list every problem, or print the settings in force (secrets masked)."""
    from deploy.terminal import as_json

    problems = check_settings(GIVEN.config, GIVEN.overrides)
    for problem in problems:
        typer.echo(str(problem), err=True)
    if problems:
        raise typer.Exit(1)
    settings = given_settings()
    typer.echo(as_json(redacted(settings)))
    typer.echo(f"digest {settings_digest(settings)}", err=True)


def status() -> None:
    """Show the counts of alerts by outcome, and which model each survey has."""
    from rich.console import Console
    from rich.table import Table

    from active_learning.which_model import champions
    from deploy.places import open_store
    from deploy.terminal import status_lines
    from lightcurves.surveys import LSST
    from store.accounting_queries import counts
    from store.database import reading

    settings = given_settings()
    with reading(open_store(settings, settings.store.query_timeout_s)) as connection:
        held = counts(connection)
        by_survey = champions(connection, settings.models.alias)
    models = {"model": "none promoted"}
    for survey, champion in by_survey.items():
        since = time.strftime("%F %T", time.localtime(champion["promoted_ms"] / 1e3))
        name = "model" if survey == LSST.name else f"model for {survey}"
        models[name] = f"{champion['model_version']} since {since}"
    table = Table(title=f"noctule, {settings.state}", show_header=False)
    for name, value in {**status_lines(held), **models}.items():
        table.add_row(name, value)
    Console().print(table)
