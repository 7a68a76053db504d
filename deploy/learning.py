"""``noctule learn``: runs the learner, restarts it after an outage, serves its health and metrics."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Final, NoReturn

from active_learning.learner import learn_forever, learn_once
from active_learning.monitor import LearnerMetrics, LearnerMonitor
from deploy.places import open_store
from deploy.terminal import CONSOLE
from deploy.wiring import learner_config
from lightcurves.errors import UnavailableError
from watch.endpoint import telling
from watch.health import PAUSE_S

if TYPE_CHECKING:
    from deploy.sections import Settings

LOG: Final = logging.getLogger("noctule")


def run_learn(settings: Settings, *, once: bool) -> None:
    """Run the learner until it is stopped, or with `once` one trial, however few labels are new.

    Raises
    ------
    ConfigurationError
        No model, no frozen set, nothing to train on, or the port for metrics is in use.
    UnavailableError
        The database is unavailable at the start (later the learner waits and tries again), or with `once`.
    """
    if once:
        CONSOLE.print(learn_once(open_store(settings), learner_config(settings), force=True))
        return
    learning = settings.learning
    monitor = LearnerMonitor(learning.poll_s)
    with ExitStack() as stack:
        if learning.metrics_port:
            where = (learning.metrics_host, learning.metrics_port)
            stack.enter_context(telling(LearnerMetrics(monitor), monitor, *where, "learning"))
        # No handler for SIGTERM: a training cannot be interrupted, and one that is killed leaves nothing.
        with suppress(KeyboardInterrupt), monitor.until_death():
            _learn_on(settings, monitor)
        monitor.stopped()


def _learn_on(settings: Settings, monitor: LearnerMonitor) -> NoReturn:
    engine, config = open_store(settings), learner_config(settings)
    while True:
        try:
            learn_forever(engine, config, poll_s=settings.learning.poll_s, listener=monitor)
        except UnavailableError as error:
            LOG.warning("%s; trying again in %.0f s", error, PAUSE_S)
            monitor.waiting(str(error))
            time.sleep(PAUSE_S)
