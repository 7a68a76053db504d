"""Commands around the stream: portal, kafka, replay, simulate, maintain, audit, status."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.table import Table

from deploy import logs
from deploy.kafka import EmbeddedKafka
from deploy.wiring import (
    delta_folder,
    kafka_client,
    make_topics,
    open_store,
)
from lightcurves.alerts import framed_packets
from lightcurves.errors import NoctuleError, UnavailableError
from store import registry
from store.accounting_queries import Counts, counts, rejected_packets
from store.database import reading
from stream.access import check_access
from stream.audit import PartitionAudit, audit
from stream.consumer import Watermarks
from stream.topic import publish

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from deploy.sections import Settings
    from store.maintenance import Saved

LOG: Final = logging.getLogger("noctule")
CONSOLE: Final = Console(stderr=True, width=None if sys.stderr.isatty() else 160)
ALERT_PARTITIONS: Final = 2

PAUSE_S: Final = 60.0
"""After an outage of Kafka or the database what runs on tries again at least this often."""


def stop_event() -> threading.Event:
    """Return an event that SIGTERM and Ctrl-C set."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def check_kafka(settings: Settings) -> dict[tuple[str, int], tuple[int, int]]:
    """Return the bounds of every partition of the alert topics.

    Raises
    ------
    UnavailableError
        Kafka does not answer or does not let us in, or a topic is not there.
    """
    client, timeout_s = kafka_client(settings), settings.kafka.timeout_s
    check_access(client, timeout_s)
    marks = Watermarks(list(settings.kafka.alert_topics), client, timeout_s)
    try:
        return marks.now()
    finally:
        marks.close()


def run_kafka(settings: Settings, port: int | None) -> None:
    """Run the embedded Kafka in the foreground until it is stopped."""
    with EmbeddedKafka(settings.state / "kafka", port, progress=CONSOLE.print) as kafka:
        stop = stop_event()
        kafka_section = settings.kafka.model_copy(
            update={"bootstrap_servers": kafka.bootstrap_servers}
        )
        make_topics(settings.model_copy(update={"kafka": kafka_section}), ALERT_PARTITIONS)
        CONSOLE.print(
            f"Kafka is up. Use it with [bold]--set kafka.bootstrap_servers={kafka.bootstrap_servers}[/]"
        )
        CONSOLE.print("Ctrl-C stops it; its topics stay.")
        stop.wait()


def run_topics(settings: Settings, partitions: int) -> dict[str, int]:
    """Make the topics that are missing; return all that are needed, with their partitions."""
    return make_topics(settings, partitions)


def run_replay(settings: Settings, path: Path, topic: str | None, rate_per_s: float | None) -> int:
    """Send packets from disk to a topic; return how many."""
    check_kafka(settings)
    return _publish(settings, framed_packets(path), topic, rate_per_s)


def run_replay_rejected(
    settings: Settings, reason: str | None, topic: str | None, rate_per_s: float | None
) -> int:
    """Send rejected packets to the alert topic again, bytes unchanged; return how many.

    They are read as new messages; the rows that say why they were rejected stay.
    """
    check_kafka(settings)
    with reading(open_store(settings)) as connection:
        return _publish(settings, rejected_packets(connection, reason), topic, rate_per_s)


def run_simulate(
    settings: Settings,
    data: Path,
    *,
    topic: str | None,
    out: Path | None,
    rate_per_s: float | None,
    at_most: int | None,
) -> int:
    """Send the alerts of a light-curve folder to a topic, or write them to an Avro file."""
    from itertools import islice  # noqa: PLC0415 - one use

    from simulator.container import write_container  # noqa: PLC0415 - needs the GPL schemas
    from simulator.packets import SimulatedAlerts  # noqa: PLC0415

    packets = islice(SimulatedAlerts.of_folder(data), at_most)
    if out is not None:
        return write_container(out, packets)
    return _publish(settings, packets, topic, rate_per_s)


def _publish(
    settings: Settings, packets: Iterator[bytes], topic: str | None, rate_per_s: float | None
) -> int:
    client: Mapping[str, str] = kafka_client(settings)
    check_access(client, settings.kafka.timeout_s)
    with CONSOLE.status("sending") as status:
        return publish(
            packets,
            bootstrap_servers=client["bootstrap.servers"],
            topic=topic or settings.kafka.alert_topics[0],
            rate_per_s=rate_per_s,
            client={key: value for key, value in client.items() if key != "bootstrap.servers"},
            on_progress=lambda sent: status.update(f"{sent} packets sent"),
        )


def run_portal(settings: Settings) -> None:
    """Serve the page and the REST interface until stopped."""
    from portal.app import create_app  # noqa: PLC0415 - FastAPI and Bokeh
    from portal.serve import serve  # noqa: PLC0415
    from store.delta import read_light_curve  # noqa: PLC0415

    token = settings.portal.token
    app = create_app(
        open_store(settings, settings.store.query_timeout_s),
        light_curve=partial(read_light_curve, delta_folder(settings)),
        token=None if token is None else token.get_secret_value(),
        alias=settings.models.alias,
    )
    serve(app, settings.portal.host, settings.portal.port)


def run_maintain(settings: Settings, every_s: float | None) -> None:
    """Keep the tables small: one round, or with `every_s` one so many seconds until stopped."""
    stop = stop_event() if every_s else threading.Event()
    while True:
        try:
            _maintain_once(settings, stop)
        except UnavailableError as error:
            if not every_s:
                raise
            LOG.warning("%s; trying again in %.0f s", error, every_s)
        if not every_s or stop.wait(every_s):
            return


def _maintain_once(settings: Settings, stop: threading.Event) -> None:
    from deploy.again import rescored_folder  # noqa: PLC0415 - it needs this module
    from store.maintenance import Retention, maintain, maintain_rescored  # noqa: PLC0415 - numba

    retention = Retention(**settings.maintenance.model_dump())
    live, again = delta_folder(settings), rescored_folder(settings)
    engine = open_store(settings)
    try:
        saved = maintain(engine, live, retention, partial(_log_step, ""), stop.is_set)
        _tell_saved(saved, live.name, "")
    finally:
        engine.dispose()
    prefix = f"{again.name}: "
    of_again = maintain_rescored(again, retention, partial(_log_step, prefix), stop.is_set)
    if of_again is not None:
        _tell_saved(of_again, again.name, prefix)


def _log_step(prefix: str, line: str, /, **fields: object) -> None:
    LOG.info("%s%s", prefix, line, extra=fields)


def _tell_saved(saved: Saved, table: str, prefix: str) -> None:
    """Say what came of a round: a line of the log where machines read it, else one for people."""
    if logs.is_json():
        _log_step(prefix, saved_text(saved), table=table, step="done", **saved.fields())
    else:
        CONSOLE.print(f"{prefix}{saved_text(saved)}")


def saved_text(saved: Saved) -> str:
    """Return what a round of maintenance came to as one line."""
    (files, left), (n_bytes, bytes_left) = saved.files, saved.n_bytes
    return (
        f"{files} files of {n_bytes / 1e6:.1f} MB are {left} of {bytes_left / 1e6:.1f} MB; "
        f"{saved.n_emptied} light curves emptied; {saved.n_vacuumed} files deleted, "
        f"{saved.vacuumed_bytes / 1e6:.1f} MB; {saved.n_log_files} of the log"
    )


def run_audit(settings: Settings, since_ms: int, until_ms: int | None) -> list[PartitionAudit]:
    """Audit the tables, and the topics where Kafka answers; see :func:`stream.audit.audit`."""
    ends = None
    if settings.kafka.bootstrap_servers is not None:
        try:
            ends = check_kafka(settings)
        except NoctuleError as error:
            CONSOLE.print(f"[yellow]{error}; auditing the tables alone[/]")
    with reading(open_store(settings)) as connection:
        return audit(connection, ends, since_ms=since_ms, until_ms=until_ms)


def audit_table(parts: list[PartitionAudit]) -> Table:
    """Return the audit as a table for the terminal."""
    table = Table(title="audit: read = classified + not evaluated + duplicate + rejected")
    for name in ("run", "topic", "partition", "offsets", "read", "classified", "not evaluated", "duplicate",
                 "rejected", "lost", "stored", "waiting", "verdict"):  # fmt: skip
        table.add_column(name, justify="left" if name in {"run", "topic", "verdict"} else "right")
    for part in parts:
        numbers = (part.n_read, part.n_classified, part.n_not_evaluated, part.n_duplicate, part.n_rejected,
                   part.n_lost, part.n_stored)  # fmt: skip
        table.add_row(
            part.run_id[:8], part.topic, str(part.partition), f"{part.start_offset}-{part.end_offset}",
            *map(str, numbers), "?" if part.n_waiting is None else str(part.n_waiting),
            f"{len(part.problems)} problems" if part.problems else "closes",
        )  # fmt: skip
    return table


def run_status(settings: Settings) -> Table:
    """Return what the tables hold, for the terminal."""
    with reading(open_store(settings, settings.store.query_timeout_s)) as connection:
        held = counts(connection)
        champion = registry.champion(connection, settings.models.alias)
    table = Table(title=f"noctule, {settings.state}", show_header=False)
    for name, value in status_lines(held).items():
        table.add_row(name, value)
    since = (
        ""
        if champion is None
        else time.strftime(" since %F %T", time.localtime(champion["promoted_ms"] / 1e3))
    )
    table.add_row(
        "model", "none promoted" if champion is None else f"{champion['model_version']}{since}"
    )
    return table


def status_lines(held: Counts) -> dict[str, str]:
    """Return counts as texts by name."""

    def by_reason(reasons: Mapping[str, int]) -> str:
        listed = ", ".join(f"{reason} {n}" for reason, n in reasons.items())
        return f"{sum(reasons.values())}" + (f" ({listed})" if listed else "")

    return {
        "alerts": str(held.alerts),
        "scored": str(held.scored),
        "not evaluated": by_reason(held.not_evaluated),
        "duplicates": str(held.duplicates),
        "rejected": by_reason(held.rejected),
        "open label requests": str(held.queue_open),
        "labels": str(held.labels),
    }
