"""Commands that run the live path: Kafka and its topics, the stream, the portal."""

from __future__ import annotations

from typing import Annotated

import typer

from deploy.given import given_settings


def kafka(
    port: Annotated[
        int | None, typer.Option(help="Port to listen on; by default a free one.")
    ] = None,
) -> None:
    """Run the embedded Kafka in the foreground: one broker on this machine, with noctule's topics."""
    from deploy.kafka import EmbeddedKafka
    from deploy.terminal import CONSOLE, stop_event
    from deploy.wiring import ALERT_PARTITIONS, make_topics, with_broker

    settings = given_settings()
    with EmbeddedKafka(settings.state / "kafka", port, progress=CONSOLE.print) as broker:
        stop = stop_event()
        make_topics(with_broker(settings, broker), ALERT_PARTITIONS)
        CONSOLE.print(
            f"Kafka is up. Use it with [bold]--set kafka.bootstrap_servers={broker.bootstrap_servers}[/]"
        )
        CONSOLE.print("Ctrl-C stops it; its topics stay.")
        stop.wait()


def topics(
    partitions: Annotated[
        int,
        typer.Option(min=1, help="Partitions of a new alert topic: one per core that scores."),
    ] = 2,
) -> None:
    """Create the topics that are missing in your Kafka; existing ones stay as they are."""
    from deploy.wiring import make_topics

    typer.echo(", ".join(make_topics(given_settings(), partitions)))


def stream(
    once: Annotated[
        bool, typer.Option("--once", help="Read what is in the topics now, then stop.")
    ] = False,
) -> None:
    """Run the Spark job: read alerts from Kafka, score them, write to SQL, Delta Lake and Kafka."""
    from deploy.streaming import run_stream

    run_stream(given_settings(), once=once)


def portal(
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
) -> None:
    """Serve the web pages and the REST interface."""
    from functools import partial

    from deploy.places import delta_folder, open_store
    from portal.app import create_app
    from portal.serve import serve
    from store.delta import read_light_curve

    settings = given_settings(portal__port=port)
    token = settings.portal.token
    app = create_app(
        open_store(settings, settings.store.query_timeout_s),
        light_curve=partial(read_light_curve, delta_folder(settings)),
        token=None if token is None else token.get_secret_value(),
        alias=settings.models.alias,
    )
    serve(app, settings.portal.host, settings.portal.port)
