"""Commands about alerts and light curves: schemas, other people's files, packets sent to a topic."""

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
            help="An id as in the packets' frames (1000 is LSST's 10.0), or a file: .avsc or Avro."
        ),
    ],
) -> None:
    """Print what is read of an alert schema, what it lacks, and what is stepped over."""
    from deploy.wiring import scorer_config
    from lightcurves.explain import explain as in_words
    from lightcurves.recognise import survey_of
    from lightcurves.schemas import schema_in

    settings = given_settings()
    if schema.isascii() and schema.isdigit():
        found = scorer_config(settings).schemas().schema(int(schema))
    else:
        found = schema_in(Path(schema))
    if found is None:
        raise ConfigurationError(
            f"no schema has the id {schema}: set schemas.source to where your packets' schemas are"
        )
    typer.echo(in_words(found, survey_of(found)))


def schemas(
    folder: Annotated[Path, typer.Argument(help="Folder to write; made where it is missing.")],
) -> None:
    """Write the Avro schemas of what goes out to Kafka, for those who read it."""
    from stream.messages import write_schemas

    for path in write_schemas(folder):
        typer.echo(str(path))


def import_(
    survey: Annotated[str, typer.Argument(help="plasticc or snpcc.")],
    source: Annotated[Path, typer.Argument(help="Folder with the challenge's own files.")],
    folder: Annotated[Path, typer.Argument(help="Light-curve folder to write.")],
) -> None:
    """Turn a classification challenge's files into a light-curve folder (fluxes in nJy)."""
    from lightcurves.imports import import_plasticc, import_snpcc

    known = {"plasticc": import_plasticc, "snpcc": import_snpcc}
    if survey not in known:
        raise ConfigurationError(f"no import for {survey!r}: choose one of {', '.join(known)}")
    typer.echo(f"{known[survey](source, folder)} objects in {folder}")


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
    else:  # read as new messages; the rows that say why they were rejected stay
        with reading(open_store(settings)) as connection:
            n = _send(settings, rejected_packets(connection, reason), topic, rate)
    typer.echo(f"{n} packets sent")


def _send(
    settings: Settings, packets: Iterator[bytes], topic: str | None, rate_per_s: float | None
) -> int:
    """Send packets to a topic, with progress on the terminal; return how many."""
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
