"""The ``noctule`` command: each command parses, reads the settings and calls one function."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from deploy import logs
from deploy.settings import check_settings, load_settings, redacted, settings_digest
from lightcurves.errors import ConfigurationError, NoctuleError

app = typer.Typer(
    help="Reads the Rubin alert stream, says what each alert is and how sure that is, and learns "
    "from the spectra that come back.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


class _Given:
    """Options before the command."""

    config: Path | None = None
    overrides: dict[str, Any]
    quiet: bool = False


_GIVEN = _Given()


@app.callback()
def _options(
    config: Annotated[Path | None, typer.Option(help="Settings file (TOML).")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="One setting: --set kafka.bootstrap_servers=127.0.0.1:9092. May be repeated.",
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option(help="Log warnings only.")] = False,
) -> None:
    _GIVEN.config = config
    _GIVEN.overrides = dict(_split(item) for item in set_ or [])
    _GIVEN.quiet = quiet
    logs.configure("text", quiet=quiet)


def _split(item: str) -> tuple[str, str]:
    key, equals, value = item.partition("=")
    if not equals:
        raise ConfigurationError(f"--set takes KEY=VALUE, not {item!r}")
    return key, value


def _settings(**overrides: Any) -> Any:
    given = {key.replace("__", "."): value for key, value in overrides.items() if value is not None}
    settings = load_settings(_GIVEN.config, {**_GIVEN.overrides, **given})
    logs.configure(settings.logs.format, quiet=_GIVEN.quiet)
    return settings


@app.command()
def demo(
    alerts: Annotated[
        int | None, typer.Option(min=1, help="End by itself after this many alerts.")
    ] = None,
    packets: Annotated[
        Path | None, typer.Option(help="Replay your own alerts: an Avro file or a folder of them.")
    ] = None,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
) -> None:
    """Simulated nights, end to end: alerts in, scores, page, label requests, a better model out.

    Starts a Kafka of its own, trains a first model on part of PLAsTiCC (with a few classes withheld),
    plays the rest as nights of alerts, and lets a simulated telescope answer the label requests.
    Ctrl-C stops all of it; the next start goes on where this one ended.
    """
    from deploy.demo import run_demo

    run_demo(_settings(), alerts=alerts, packets=packets, browser=browser)


@app.command()
def kafka(
    port: Annotated[int | None, typer.Option(help="Port; a free one by default.")] = None,
) -> None:
    """Run the embedded Kafka in the foreground: one broker on this machine, its topics made."""
    from deploy.live import run_kafka

    run_kafka(_settings(), port)


@app.command()
def topics(
    partitions: Annotated[
        int,
        typer.Option(min=1, help="Partitions of a new alert topic: one for each core that scores."),
    ] = 2,
) -> None:
    """Make the topics that are missing in your Kafka; those that exist stay as they are."""
    from deploy.live import run_topics

    typer.echo(", ".join(run_topics(_settings(), partitions)))


@app.command()
def explain(
    schema: Annotated[
        str,
        typer.Argument(
            help="An id as in the packets' frames (1000 is LSST's 10.0), or a file: .avsc or Avro."
        ),
    ],
) -> None:
    """Print what is read of an alert schema, what it lacks, and what is stepped over."""
    from deploy.desk import explain_schema

    typer.echo(explain_schema(_settings(), schema))


@app.command()
def schemas(
    folder: Annotated[Path, typer.Argument(help="Folder to write; made where it is missing.")],
) -> None:
    """Write the Avro schemas of what goes out to Kafka, for those who read it."""
    from stream.messages import write_schemas

    for path in write_schemas(folder):
        typer.echo(str(path))


@app.command("import")
def import_(
    survey: Annotated[str, typer.Argument(help="plasticc or snpcc.")],
    source: Annotated[Path, typer.Argument(help="Folder with the challenge's own files.")],
    folder: Annotated[Path, typer.Argument(help="Light-curve folder to write.")],
) -> None:
    """Turn a classification challenge's files into a light-curve folder (fluxes in nJy)."""
    from deploy.science import run_import

    typer.echo(f"{run_import(survey, source, folder)} objects in {folder}")


@app.command()
def train(
    data: Annotated[Path, typer.Option(help="Light-curve folder with classes.")],
    out: Annotated[Path, typer.Option(help="Folder of the model to write.")],
    target: Annotated[
        Path | None,
        typer.Option(help="Light-curve folder of unlabelled objects that the model is meant for."),
    ] = None,
) -> None:
    """Train a model: classifier, calibration, prediction sets, novelty."""
    from deploy.science import as_json, run_train
    from deploy.wiring import training_settings

    manifest = run_train(data, target, out, training_settings(_settings()))
    typer.echo(as_json({"model_version": manifest.model_version, **manifest.metrics}))


@app.command()
def predict(
    model: Annotated[str, typer.Option(help="Model folder, version or alias.")],
    data: Annotated[Path, typer.Option(help="Light-curve folder.")],
    out: Annotated[Path, typer.Option(help="Parquet file to write.")],
    moments: Annotated[
        bool,
        typer.Option("--moments", help="Also as the objects looked at several earlier moments."),
    ] = False,
) -> None:
    """Score a light-curve folder: probabilities, prediction set, novelty, or the reason for none."""
    from deploy.science import run_predict

    typer.echo(f"{run_predict(model, data, out, moments=moments)} rows in {out}")


@app.command()
def evaluate(
    scores: Annotated[Path, typer.Option(help="File that predict wrote.")],
    data: Annotated[Path, typer.Option(help="Light-curve folder with the true classes.")],
) -> None:
    """Compare scores with the truth: log-loss, macro F1, calibration, coverage, novelty; JSON."""
    from deploy.science import as_json, run_evaluate

    typer.echo(as_json(run_evaluate(scores, data)))


@app.command()
def simulate(
    data: Annotated[Path, typer.Option(help="Light-curve folder of the objects.")],
    out: Annotated[Path | None, typer.Option(help="Avro file to write instead of sending.")] = None,
    topic: Annotated[
        str | None, typer.Option(help="Topic; the first alert topic by default.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="Alerts per second; as fast as possible by default.")
    ] = None,
    alerts: Annotated[int | None, typer.Option(min=1, help="Only the first so many.")] = None,
) -> None:
    """Turn objects into LSST alert packets (schema 10.0), one a detection, to a topic or a file."""
    from deploy.live import run_simulate

    n = run_simulate(_settings(), data, topic=topic, out=out, rate_per_s=rate, at_most=alerts)
    typer.echo(f"{n} packets")


@app.command()
def replay(
    path: Annotated[
        Path | None,
        typer.Argument(help="Avro container file, framed packet, or a folder of them."),
    ] = None,
    topic: Annotated[
        str | None, typer.Option(help="Topic; the first alert topic by default.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="Packets per second; as fast as possible by default.")
    ] = None,
    rejected: Annotated[
        bool, typer.Option("--rejected", help="The packets that were rejected, after a fix.")
    ] = False,
    reason: Annotated[
        str | None, typer.Option(help="With --rejected: only those with this reason code.")
    ] = None,
) -> None:
    """Send alert packets from disk to a topic, bytes unchanged; or those that were rejected, again."""
    from deploy import live

    if rejected == (path is not None):
        raise ConfigurationError("replay takes a file or folder, or --rejected")
    if path is not None:
        sent = live.run_replay(_settings(), path, topic, rate)
    else:
        sent = live.run_replay_rejected(_settings(), reason, topic, rate)
    typer.echo(f"{sent} packets sent")


@app.command()
def stream(
    once: Annotated[
        bool, typer.Option("--once", help="Drain what is in the topics now, then end.")
    ] = False,
) -> None:
    """Run the Spark job: alerts from Kafka, scored, into SQL, Delta Lake and Kafka."""
    from deploy.streaming import run_stream

    run_stream(_settings(), once=once)


@app.command()
def learn(
    once: Annotated[
        bool, typer.Option("--once", help="Train and compare once, whatever came in.")
    ] = False,
) -> None:
    """Run the learner: labels in, a challenger trained, compared on the frozen set, promoted if better."""
    from deploy.learning import run_learn

    run_learn(_settings(), once=once)


@app.command()
def queue(
    every: Annotated[bool, typer.Option("--all", help="Closed requests too.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
) -> None:
    """Show which objects a spectrum is wanted of, the most useful of the newest night first."""
    from rich.console import Console

    from deploy.desk import queue_table

    Console().print(queue_table(_settings(), every=every, limit=limit))


@app.command()
def label(
    object_id: Annotated[int, typer.Argument(min=-(2**63), max=2**63 - 1, help="diaObjectId.")],
    class_: Annotated[str, typer.Argument(metavar="CLASS", help="classId or name: 111, 'SN Ia'.")],
    reporter: Annotated[str, typer.Option(help="Who says so.")],
    confidence: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="How sure; the most confident label counts."),
    ] = None,
    comment: Annotated[str | None, typer.Option(help="Anything worth knowing.")] = None,
    survey: Annotated[
        str | None, typer.Option(help="Whose object; needed where several surveys have this id.")
    ] = None,
) -> None:
    """Report what an object is: a row in the append-only ledger of labels."""
    from deploy.desk import report

    given = (object_id, class_, reporter, confidence, comment, survey)
    typer.echo(f"label {report(_settings(), *given)}")


@app.command()
def request(
    request_id: Annotated[int, typer.Argument(min=1, help="Number of the request, see queue.")],
    event: Annotated[
        str, typer.Argument(help="seen, claimed, planned, observed, withdrawn or expired.")
    ],
    who: Annotated[str, typer.Option(help="Who says so.")],
    why: Annotated[str | None, typer.Option(help="Anything worth knowing.")] = None,
) -> None:
    """Write down what became of a request for a spectrum; withdrawn and expired close it."""
    from deploy.desk import report_event

    typer.echo(f"event {report_event(_settings(), request_id, event, who, why)}")


@app.command()
def promote(
    model: Annotated[
        str | None, typer.Argument(help="Registered version, or the folder of a model.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why; kept with the promotion.")] = "by hand",
    rollback: Annotated[bool, typer.Option("--rollback", help="Back to the model before.")] = False,
) -> None:
    """Make a model the champion: the stream scores its next batch with it."""
    from deploy import desk

    if rollback == (model is not None):
        raise ConfigurationError("promote takes a model, or --rollback")
    settings = _settings()
    version = desk.rollback(settings) if model is None else desk.promote(settings, model, reason)
    typer.echo(f"{settings.models.alias} is {version}")


@app.command()
def portal(
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one.")] = None,
) -> None:
    """Serve the page and the REST interface."""
    from deploy.live import run_portal

    run_portal(_settings(portal__port=port))


@app.command()
def rescore(
    model: Annotated[str, typer.Option(help="Version, or alias, of the model that scores.")],
    since: Annotated[
        str | None,
        typer.Option(help="Alerts from then on: ISO (local time unless it says) or MJD (TAI)."),
    ] = None,
    until: Annotated[str | None, typer.Option(help="Alerts before then.")] = None,
    by: Annotated[
        str,
        typer.Option(help="What --since and --until mean: arrival (in Kafka), or observation."),
    ] = "arrival",
    source: Annotated[
        str, typer.Option("--from", help="delta (what the stream kept), or kafka (the packets).")
    ] = "delta",
    out: Annotated[
        Path | None, typer.Option(help="Parquet file to write instead of the table.")
    ] = None,
    recompute: Annotated[
        bool,
        typer.Option("--recompute", help="Features anew from the light curves that are kept."),
    ] = False,
) -> None:
    """Score alerts again with a chosen model, beside the stream; what the stream said stays.

    Rows go to the Delta table 'rescored', one for each alert and version. Exits with 1 where Kafka no
    longer has what was asked for. May be killed and started again.
    """
    from deploy.again import outcome_lines, run_rescore, times_of

    outcome = run_rescore(
        _settings(), model, times_of(since, until, by), source=source, out=out, recompute=recompute
    )
    for line in outcome_lines(outcome):
        typer.echo(line)
    if outcome.gone:
        raise typer.Exit(1)


@app.command()
def backfill(
    since: Annotated[
        str | None,
        typer.Option(
            help="What arrived in Kafka from then on: ISO (local time unless it says) or MJD (TAI)."
        ),
    ] = None,
    until: Annotated[str | None, typer.Option(help="What arrived before then.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Version or alias that scores; the champion by default.")
    ] = None,
) -> None:
    """Read into the live tables what no stream has read, also beside the stream.

    What was read stays as it is, and what waits for the stream is left to it. No labels are requested.
    Exits with 1 where Kafka no longer has offsets, or the audit finds a gap. May be killed and started
    again.
    """
    from rich.console import Console

    from deploy.again import backfill_lines, run_backfill, times_of
    from deploy.live import audit_table

    found = run_backfill(_settings(), model, times_of(since, until))
    if found.audits:
        Console(width=None if sys.stdout.isatty() else 160).print(audit_table(found.audits))
    for line in backfill_lines(found):
        typer.echo(line)
    if found.plan.gone or any(part.problems for part in found.audits):
        raise typer.Exit(1)


@app.command()
def maintain(
    every: Annotated[
        float | None,
        typer.Option(min=1.0, help="Go on, with a round every so many seconds; one by default."),
    ] = None,
) -> None:
    """Keep the tables small, also beside the stream: join files, empty superseded light curves, clean up."""
    from deploy.live import run_maintain

    run_maintain(_settings(), every)


@app.command()
def audit(
    since: Annotated[
        datetime | None, typer.Option(help="Only batches committed from then on (local time).")
    ] = None,
    until: Annotated[datetime | None, typer.Option(help="Only batches committed before.")] = None,
) -> None:
    """Prove that every alert is accounted for; exits with 1 on a gap."""
    from rich.console import Console

    from deploy.live import audit_table, run_audit

    parts = run_audit(_settings(), _ms(since) or 0, _ms(until))
    Console(width=None if sys.stdout.isatty() else 160).print(audit_table(parts))
    broken = [(part, problem) for part in parts for problem in part.problems]
    for part, problem in broken:
        typer.echo(f"{part.topic}[{part.partition}], run {part.run_id}: {problem}")
    if broken:
        raise typer.Exit(1)


def _ms(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp() * 1000)


@app.command("check-config")
def check_config() -> None:
    """Check the settings, list every problem at once, and print what is in force (secrets masked)."""
    from deploy.science import as_json

    problems = check_settings(_GIVEN.config, _GIVEN.overrides)
    for problem in problems:
        typer.echo(str(problem), err=True)
    if problems:
        raise typer.Exit(1)
    settings = _settings()
    typer.echo(as_json(redacted(settings)))
    typer.echo(f"digest {settings_digest(settings)}", err=True)


@app.command()
def status() -> None:
    """Show what came of all that was read, and which model is in charge."""
    from rich.console import Console

    from deploy.live import run_status

    Console().print(run_status(_settings()))


def main() -> None:
    """Run the command; an error that noctule raises on purpose is one line and exit code 2."""
    try:
        app(standalone_mode=True)
    except KeyboardInterrupt:
        sys.exit(130)
    except NoctuleError as error:
        if logs.is_json():
            logs.LOG.critical("%s", error)
        else:
            typer.echo(f"noctule: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
