"""Commands of the learning loop: what is wanted, what came back, and what is learnt from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from deploy.given import given_settings
from lightcurves.errors import ConfigurationError

if TYPE_CHECKING:
    import sqlalchemy as sa


def learn(
    once: Annotated[
        bool, typer.Option("--once", help="Train and compare once, whatever came in.")
    ] = False,
) -> None:
    """Run the learner: labels in, a challenger trained, compared on the frozen set, promoted if better."""
    from deploy.learning import run_learn

    run_learn(given_settings(), once=once)


def queue(
    every: Annotated[bool, typer.Option("--all", help="Answered requests too.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
) -> None:
    """Show which objects a spectrum is wanted of, the most useful of the newest night first."""
    from rich.console import Console
    from rich.table import Table

    from deploy.places import open_store
    from store import labels
    from store.database import reading

    with reading(open_store(given_settings())) as connection:
        rows = labels.label_queue(connection, only_open=not every, limit=limit)
    table = Table(title="spectra wanted" if rows else "no spectra wanted")
    for name in ("request", "object", "night", "ra", "dec", "band", "flux nJy", "utility", "why",
                 "answer"):  # fmt: skip
        table.add_column(name)
    for row in rows:
        table.add_row(*_cells(row))
    Console().print(table)


def _cells(row: sa.RowMapping) -> tuple[str, ...]:
    from lightcurves.taxonomy import class_name

    position = (f"{row['ra_deg']:.5f}", f"{row['dec_deg']:+.5f}")
    answer = class_name(row["answer"]) if row["answered"] else ""
    flux = "" if row["flux_njy"] is None else f"{row['flux_njy']:.0f}"
    which = (str(row["request_id"]), str(row["object_id"]), str(row["night"]))
    return (*which, *position, row["band"] or "", flux, f"{row['utility']:.2f}", row["why"], answer)


def label(
    object_id: Annotated[int, typer.Argument(min=-(2**63), max=2**63 - 1, help="diaObjectId.")],
    class_: Annotated[str, typer.Argument(metavar="CLASS", help="classId or name: 111, 'SN Ia'.")],
    reporter: Annotated[str, typer.Option(help="Who says so.")],
    confidence: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="How sure; the most confident label counts."),
    ] = None,
    comment: Annotated[str | None, typer.Option(help="Anything worth knowing.")] = None,
) -> None:
    """Report what an object is: a row in the append-only ledger of labels."""
    from deploy.places import open_store
    from store import labels
    from store.clock import now_ms

    with open_store(given_settings()).begin() as connection:
        label_id = labels.report_label(
            connection,
            object_id=object_id,
            class_id=class_id_of(class_),
            reporter=reporter,
            confidence=confidence,
            comment=comment,
            now_ms=now_ms(),
        )
    typer.echo(f"label {label_id}")


def class_id_of(text: str) -> int:
    """Return the classId that `text` is or names.

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
    found = by_name.get(text.casefold(), int(text) if text.isdecimal() else None)
    if found not in CLASS_NAMES:
        known = ", ".join(f"{class_id} {name}" for class_id, name in CLASS_NAMES.items())
        raise ConfigurationError(f"no class {text!r} in the taxonomy: {known}")
    return found
