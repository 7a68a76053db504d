"""The ``noctule`` command."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import typer

from deploy.commands import data, demo, loop, models, operate, run
from deploy.given import options
from lightcurves.errors import NoctuleError
from watch import logs

if TYPE_CHECKING:
    from collections.abc import Callable

COMMANDS: Final[dict[str, Callable[..., None]]] = {
    "demo": demo.demo,
    "kafka": run.kafka,
    "topics": run.topics,
    "explain": data.explain,
    "schemas": data.schemas,
    "import": data.import_,
    "train": models.train,
    "predict": models.predict,
    "evaluate": models.evaluate,
    "simulate": data.simulate,
    "replay": data.replay,
    "stream": run.stream,
    "learn": loop.learn,
    "queue": loop.queue,
    "label": loop.label,
    "request": loop.request,
    "promote": models.promote,
    "portal": run.portal,
    "rescore": operate.rescore,
    "backfill": operate.backfill,
    "maintain": operate.maintain,
    "audit": operate.audit,
    "check-config": operate.check_config,
    "status": operate.status,
}
"""Each command, in the order of ``noctule --help``."""

app = typer.Typer(
    help="Reads the Rubin alert stream, says what each alert probably is and how certain that is, and "
    "learns from the spectra that come back.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.callback()(options)
for _name, _command in COMMANDS.items():
    app.command(_name)(_command)


def main() -> None:
    """Run the command; an error that noctule raises on purpose is printed as one line, with exit code 2."""
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
