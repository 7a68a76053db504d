"""The demo: everything at once, on one machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deploy.given import given_settings


def demo(
    alerts: Annotated[int | None, typer.Option(min=1, help="Stop after this many alerts.")] = None,
    packets: Annotated[
        Path | None,
        typer.Option(
            help="Use your own alerts instead of simulated ones: an Avro file or a folder of them."
        ),
    ] = None,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
) -> None:
    """Run everything on simulated nights: alerts, scores, web page, label requests, a better model.

    Starts its own Kafka, trains a first model on part of PLAsTiCC (a few classes are left out), sends
    the rest as nights of alerts, and has a simulated telescope answer the label requests. Ctrl-C stops
    everything; the next start continues where this one ended.
    """
    from deploy.demo import run_demo

    run_demo(given_settings(), alerts=alerts, packets=packets, browser=browser)
