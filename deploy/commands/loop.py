"""Commands of the learning loop: requests for spectra, labels, and training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from deploy.given import given_settings
from lightcurves.errors import ConfigurationError

if TYPE_CHECKING:
    import sqlalchemy as sa


def learn(
    once: Annotated[
        bool,
        typer.Option(
            "--once", help="Train and compare once, however few new labels there are, then stop."
        ),
    ] = False,
) -> None:
    """Run the learner: train a challenger on new labels, compare it with the champion, promote the better."""
    from deploy.learning import run_learn

    run_learn(given_settings(), once=once)


def queue(
    every: Annotated[bool, typer.Option("--all", help="Show closed requests too.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="Show at most this many requests.")] = 50,
) -> None:
    """List the requests for spectra: newest night first, within a night the most useful first."""
    from rich.console import Console
    from rich.table import Table

    from deploy.places import open_store
    from store.database import reading
    from store.request_queries import label_queue

    settings = given_settings()
    with reading(open_store(settings, settings.store.query_timeout_s)) as connection:
        rows = label_queue(connection, only_open=not every, limit=limit)
    table = Table(title="spectra wanted" if rows else "no spectra wanted")
    for name in ("request", "survey", "object", "program", "night", "ra", "dec", "band", "flux nJy",
                 "utility", "why", "state", "answer"):  # fmt: skip
        table.add_column(name)
    for row in rows:
        table.add_row(*_cells(row))
    Console().print(table)


def _cells(row: sa.RowMapping) -> tuple[str, ...]:
    from lightcurves.taxonomy import class_name

    position = (f"{row['ra_deg']:.5f}", f"{row['dec_deg']:+.5f}")
    answer = class_name(row["answer"]) if row["answered"] else ""
    flux = "" if row["flux_njy"] is None else f"{row['flux_njy']:.0f}"
    names = ("request_id", "survey", "object_id", "program", "night")
    how_far = f"{row['state']} by {row['state_who']}"
    useful = (row["band"] or "", flux, f"{row['utility']:.2f}", row["why"])
    return (*(str(row[name]) for name in names), *position, *useful, how_far, answer)


def label(
    object_id: Annotated[
        int, typer.Argument(min=-(2**63), max=2**63 - 1, help="diaObjectId of the object.")
    ],
    class_: Annotated[
        str, typer.Argument(metavar="CLASS", help="classId or class name: 111 or 'SN Ia'.")
    ],
    reporter: Annotated[str, typer.Option(help="Who reports the label.")],
    confidence: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="How certain the label is; where labels disagree, the most confident one counts.",
        ),
    ] = None,
    comment: Annotated[str | None, typer.Option(help="Free text.")] = None,
    survey: Annotated[
        str | None,
        typer.Option(help="Survey of the object; required if none, or more than one, has this id."),
    ] = None,
) -> None:
    """Report the class of an object: adds a row to the append-only ledger of labels."""
    from deploy.places import open_store
    from store import labels
    from store.clock import now_ms
    from store.object_queries import survey_of

    class_id = class_id_of(class_)
    with open_store(given_settings()).begin() as connection:
        label_id = labels.report_label(
            connection,
            survey=survey_of(connection, object_id, survey),
            object_id=object_id,
            class_id=class_id,
            reporter=reporter,
            confidence=confidence,
            comment=comment,
            now_ms=now_ms(),
        )
    typer.echo(f"label {label_id}")


def request(
    request_id: Annotated[
        int, typer.Argument(min=1, help="Number of the request, as `noctule queue` lists it.")
    ],
    event: Annotated[
        str, typer.Argument(help="seen, claimed, planned, observed, withdrawn or expired.")
    ],
    who: Annotated[str, typer.Option(help="Who reports the event.")],
    why: Annotated[str | None, typer.Option(help="Free text.")] = None,
) -> None:
    """Record what became of a request for a spectrum; withdrawn and expired close it."""
    from deploy.places import open_store
    from store import requests
    from store.clock import now_ms

    with open_store(given_settings()).begin() as connection:
        told = requests.append_event(
            connection, request_id, event, who=who, at_ms=now_ms(), why=why
        )
    typer.echo(f"event {told['event_id']}")


def class_id_of(text: str) -> int:
    """Return the classId that `text` gives, as a number or as a class name.

    Raises
    ------
    ConfigurationError
        The taxonomy has no such class.

    Examples
    --------
    >>> class_id_of("111"), class_id_of("sn ia")
    (111, 111)
    """
    from lightcurves.taxonomy import CLASS_NAMES

    by_name = {name.casefold(): class_id for class_id, name in CLASS_NAMES.items()}
    class_id = by_name.get(text.casefold(), int(text) if text.isdecimal() else None)
    if class_id not in CLASS_NAMES:
        known = ", ".join(f"{known_id} {name}" for known_id, name in CLASS_NAMES.items())
        raise ConfigurationError(f"no class {text!r} in the taxonomy: {known}")
    return class_id
