"""Commands about alerts and light curves: schemas, files from elsewhere, packets sent to a topic."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploy.given import given_settings
from lightcurves.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deploy.sections import Settings


def explain(
    schema: Annotated[
        str,
        typer.Argument(
            help="A schema id as in packet frames (1000 is LSST's 10.0), or a file: .avsc or Avro."
        ),
    ],
) -> None:
    """Print which fields of an alert schema are read, which are missing, and which are skipped."""
    from deploy.wiring import scorer_config
    from lightcurves.explain import explain as in_words
    from lightcurves.recognise import survey_of
    from lightcurves.schemas import schema_in

    settings = given_settings()
    if schema.isascii() and schema.isdigit():
        described = scorer_config(settings).schemas().schema(int(schema))
    else:
        described = schema_in(Path(schema))
    if described is None:
        raise ConfigurationError(
            f"no schema has the id {schema}: set schemas.source to where your packets' schemas are"
        )
    typer.echo(in_words(described, survey_of(described)))


def schemas(
    folder: Annotated[Path, typer.Argument(help="Folder to write to; created if missing.")],
) -> None:
    """Write the Avro schemas of noctule's outgoing Kafka messages to files, for consumers."""
    from stream.messages import write_schemas

    for path in write_schemas(folder):
        typer.echo(str(path))


def import_(
    survey: Annotated[str, typer.Argument(help="plasticc or snpcc.")],
    source: Annotated[Path, typer.Argument(help="Folder with the challenge's own files.")],
    folder: Annotated[Path, typer.Argument(help="Light-curve folder to write.")],
) -> None:
    """Convert the files of a classification challenge to a light-curve folder (fluxes in nJy)."""
    from lightcurves.imports import import_plasticc, import_snpcc

    known = {"plasticc": import_plasticc, "snpcc": import_snpcc}
    if survey not in known:
        raise ConfigurationError(f"no import for {survey!r}: choose one of {', '.join(known)}")
    typer.echo(f"{known[survey](source, folder)} objects in {folder}")


def simulate(
    data: Annotated[Path, typer.Option(help="Light-curve folder with the objects.")],
    out: Annotated[
        Path | None, typer.Option(help="Avro file to write, instead of sending to a topic.")
    ] = None,
    topic: Annotated[
        str | None, typer.Option(help="Topic to send to; by default the first alert topic.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="Alerts per second; by default as fast as possible.")
    ] = None,
    alerts: Annotated[int | None, typer.Option(min=1, help="Stop after this many alerts.")] = None,
) -> None:
    """Make LSST alert packets (schema 10.0) from objects, one per detection, for a topic or a file."""
    from itertools import islice

    from simulator.container import write_container
    from simulator.packets import SimulatedAlerts

    settings = given_settings()
    packets = islice(SimulatedAlerts.of_folder(data), alerts)
    n = write_container(out, packets) if out else _send(settings, packets, topic, rate)
    typer.echo(f"{n} packets")


def replay(
    path: Annotated[
        Path | None,
        typer.Argument(help="Avro container file, framed packet, or a folder of them."),
    ] = None,
    topic: Annotated[
        str | None, typer.Option(help="Topic to send to; by default the first alert topic.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="Packets per second; by default as fast as possible.")
    ] = None,
    rejected: Annotated[
        bool, typer.Option("--rejected", help="Send the rejected packets again, after a fix.")
    ] = False,
    reason: Annotated[
        str | None, typer.Option(help="With --rejected: only those with this reason code.")
    ] = None,
) -> None:
    """Send alert packets from disk to a topic, bytes unchanged; or send rejected packets again."""
    from deploy.places import open_store
    from deploy.wiring import check_kafka
    from lightcurves.alerts import framed_packets
    from store.accounting_queries import rejected_packets
    from store.database import reading

    if rejected == (path is not None):
        raise ConfigurationError("replay takes a file or folder, or --rejected")
    settings = given_settings()
    check_kafka(settings)
    if path is not None:
        n = _send(settings, framed_packets(path), topic, rate)
    else:  # they are read as new messages; the old rows in the table of rejected packets stay
        with reading(open_store(settings)) as connection:
            n = _send(settings, rejected_packets(connection, reason), topic, rate)
    typer.echo(f"{n} packets sent")


def _send(
    settings: Settings, packets: Iterator[bytes], topic: str | None, rate_per_s: float | None
) -> int:
    """Send packets to a topic, with progress on the terminal; return their number."""
    from deploy.terminal import CONSOLE
    from deploy.wiring import kafka_client
    from stream.access import check_access
    from stream.topic import publish

    client = kafka_client(settings)
    check_access(client, settings.kafka.timeout_s)
    with CONSOLE.status("sending") as status:
        return publish(
            packets,
            bootstrap_servers=client.pop("bootstrap.servers"),
            topic=topic or settings.kafka.alert_topics[0],
            rate_per_s=rate_per_s,
            client=client,
            on_progress=lambda sent: status.update(f"{sent} packets sent"),
        )
