"""The demo: everything at once, on one machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deploy.given import given_settings


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

    run_demo(given_settings(), alerts=alerts, packets=packets, browser=browser)
