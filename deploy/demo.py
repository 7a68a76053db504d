"""``noctule demo``: simulated nights, from the alert to the better model, all on this machine.

Steps: start a Kafka; take PLAsTiCC from an installed package and split it by object into training, frozen
and streamed parts; train a first model, unless there is one for these data, this code and these settings;
then run stream, portal and learner as processes, the nights and the telescope as threads.
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import socket
import threading
import time
import webbrowser
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from rich.live import Live

from active_learning.learner import register, store_artifact
from deploy.children import Child, stop_all
from deploy.kafka import EmbeddedKafka
from deploy.places import open_store
from deploy.screen import Progress, demo_screen, demo_summary
from deploy.terminal import CONSOLE, audit_table, stop_event, training_bar
from deploy.wiring import (
    ALERT_PARTITIONS,
    check_kafka,
    kafka_client,
    make_topics,
    scorer_config,
    training_settings,
    with_broker,
)
from lightcurves.alerts import alert_files, framed_packets
from lightcurves.errors import ConfigurationError, UnavailableError
from lightcurves.features.registry import FEATURE_DIGEST
from lightcurves.folders import read_light_curves
from lightcurves.imports import import_plasticc, plasticc_source
from models.artifact import read_manifest
from models.folder import is_model
from models.training import moments_of, train
from simulator.night import Bookmark, NightPlan, play
from simulator.packets import SimulatedAlerts
from simulator.split import Split, split_objects
from simulator.telescope import Telescope, read_truth
from store import registry
from store.accounting_queries import read_positions
from store.clock import now_ms
from store.database import reading
from stream.scoring import Scorer
from stream.topic import Publisher

if TYPE_CHECKING:
    from collections.abc import Callable

    from deploy.sections import Settings

LOG: Final = logging.getLogger("noctule.demo")

_LOOK_S: Final = 0.5
_DRAIN_S: Final = 300.0


@dataclass(frozen=True)
class DemoData:
    """The simulated sky on disk."""

    split: Split

    def digest(self, settings: Settings) -> str:
        """Return everything that a first model depends on: data, code, settings."""
        parts = [FEATURE_DIGEST, repr(training_settings(settings)), _code_digest()]
        parts += [_file_digest(path) for path in sorted(self.split.train.iterdir())]
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]


def _file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _code_digest() -> str:
    root = Path(__file__).parents[1]
    files = sorted(
        file for room in ("lightcurves", "models") for file in (root / room).rglob("*.py")
    )
    return hashlib.sha256("".join(map(_file_digest, files)).encode()).hexdigest()


def prepare_data(settings: Settings) -> DemoData:
    """Import PLAsTiCC and split it by object, once."""
    folder = settings.state / "demo" / "plasticc"
    if not (folder / "objects.parquet").is_file():
        with CONSOLE.status("reading PLAsTiCC's training set"):
            n = import_plasticc(plasticc_source(), folder)
        CONSOLE.print(f"PLAsTiCC: {n} labelled objects")
    split = split_objects(
        folder,
        settings.state / "demo" / "split",
        seed=settings.demo.seed,
        withheld_classes=settings.demo.withheld_classes,
    )
    return DemoData(split)


def first_model(settings: Settings, data: DemoData, engine: sa.Engine) -> str:
    """Train the first model unless it exists; make it the champion unless there is one."""
    kept = settings.state / "demo" / "first-model.json"
    key = data.digest(settings)
    version = _kept_version(kept, key, settings)
    if version is None:
        moments = moments_of(read_light_curves(data.split.train))
        with training_bar() as progress:
            parts = train(moments, training_settings(settings), progress)
        manifest, _ = store_artifact(parts, settings.models.folder)
        version = manifest.model_version
        kept.write_text(json.dumps({"key": key, "model_version": version}))
    folder = settings.models.folder / version
    with engine.begin() as connection:
        register(connection, read_manifest(folder), folder)
        if not _usable(registry.champion(connection, settings.models.alias)):
            registry.promote(
                connection, settings.models.alias, version, reason="first model", now_ms=now_ms()
            )
    return version


def _usable(champion: sa.RowMapping | None) -> bool:
    """Return whether there is a champion that this version of the code can load."""
    if champion is None:
        return False
    try:
        read_manifest(Path(champion["path"]))
    except ConfigurationError:
        return False
    return True


def compile_kernels(settings: Settings, data: DemoData, version: str) -> None:
    """Score one alert here, so that numba compiles once and not in every worker at the same time."""
    with CONSOLE.status("compiling the kernels (once)"):
        packet = SimulatedAlerts.of_folder(data.split.stream).packet(0)
        Scorer(scorer_config(settings)).score_packets([packet], version)


def _kept_version(kept: Path, key: str, settings: Settings) -> str | None:
    if not kept.is_file():
        return None
    said = json.loads(kept.read_text())
    there = is_model(settings.models.folder / said["model_version"])
    return str(said["model_version"]) if said["key"] == key and there else None


@dataclass
class Sky:
    """Sends alerts to the topic, in a thread.

    Attributes
    ----------
    settings
        Settings with the broker's address.
    at_most
        Stop after this many alerts; None for no limit.
    progress
        Counters for the screen; updated here.
    stop
        Stops sending.
    finished
        Set when nothing more will come.
    """

    settings: Settings
    at_most: int | None
    progress: Progress
    stop: threading.Event
    finished: threading.Event = field(default_factory=threading.Event)
    error: Exception | None = None

    def run(self, play_it: Callable[[Callable[[bytes], None], Publisher], None]) -> None:
        """Open a publisher and send; an error is stored for the main thread."""
        client = kafka_client(self.settings)
        try:
            with Publisher(
                client.pop("bootstrap.servers"), self.settings.kafka.alert_topics[0], client=client
            ) as publisher:
                play_it(lambda packet: self._send(publisher, packet), publisher)
        except Exception as error:  # noqa: BLE001 - a thread's boundary
            self.error = error
        finally:
            self.finished.set()

    def _send(self, publisher: Publisher, packet: bytes) -> None:
        publisher.send(packet)
        self.progress.n_sent += 1
        if self.at_most is not None and self.progress.n_sent >= self.at_most:
            self.stop.set()


def play_nights(sky: Sky, split: Split) -> None:
    """Send the alerts of the streamed objects night by night, from where the last demo ended."""
    plan = NightPlan.of_folder(split.stream)
    bookmark = Bookmark(sky.settings.state / "demo" / "position.json", plan.digest())
    begun = bookmark.read()
    sky.progress.n_planned = len(plan) - begun

    def on_night(night: int, position: int, publisher: Publisher) -> None:
        publisher.flush()
        bookmark.write(position)
        sky.progress.night = night

    def played(send: Callable[[bytes], None], publisher: Publisher) -> None:
        position = play(
            plan,
            send,
            night_s=sky.settings.demo.night_s,
            position=begun,
            stop=sky.stop,
            on_night=lambda night, at: on_night(night, at, publisher),
        )
        publisher.flush()
        bookmark.write(position)

    sky.run(played)


def play_packets(sky: Sky, path: Path) -> None:
    """Send packets from disk, each once: a second demo continues after those that were sent."""
    names = "".join(f"{file}{file.stat().st_size}" for file in alert_files(path))
    digest = hashlib.sha256(names.encode()).hexdigest()
    bookmark = Bookmark(sky.settings.state / "demo" / "packets.json", digest)

    def played(send: Callable[[bytes], None], publisher: Publisher) -> None:
        position = begun = bookmark.read()
        for number, packet in enumerate(framed_packets(path)):
            if number < begun:
                continue
            if sky.stop.is_set():
                break
            send(packet)
            position = number + 1
        publisher.flush()
        bookmark.write(position)
        if position == begun:
            CONSOLE.print(
                f"[yellow]all packets of {path} were played before: here is what came of them[/]"
            )

    sky.run(played)


class PortalDesk:
    """The portal's REST interface, as the telescope sees it."""

    def __init__(self, url: str, token: str) -> None:
        from portal.client import Client  # noqa: PLC0415 - httpx

        self._client = Client(url, token)

    def open_requests(self) -> list[dict[str, Any]]:
        """Return the open requests."""
        return list(self._client.queue())

    def report(self, object_id: int, class_id: int, **more: Any) -> object:
        """Report a label."""
        return self._client.report_label(object_id, class_id, **more)


def watch_telescope(sky: Sky, telescope: Telescope) -> None:
    """Observe after each simulated night."""
    seen = None
    while not sky.stop.wait(_LOOK_S):
        night = sky.progress.night
        if night is not None and night != seen:
            try:
                sky.progress.n_spectra += telescope.observe(night)
            except Exception as error:  # noqa: BLE001 - a thread's boundary
                sky.error = error
                return
            seen = night


def run_demo(
    settings: Settings, *, alerts: int | None, packets: Path | None, browser: bool
) -> None:
    """Run the demo until Ctrl-C, or until `alerts` alerts are accounted for.

    Raises
    ------
    ConfigurationError
        No Java, a port in use, no such packets.
    UnavailableError
        A process ended by itself, Kafka's jars cannot be downloaded, ...
    """
    from deploy.java import find_java  # noqa: PLC0415

    find_java()
    if packets is not None:
        alert_files(packets)
    begun = time.monotonic()
    with ExitStack() as stack:
        settings = _with_kafka(settings, stack)
        engine = open_store(settings)
        data = prepare_data(settings)
        compile_kernels(settings, data, first_model(settings, data, engine))
        stop = stop_event()  # until here Ctrl-C ends us where we are
        port = (
            settings.portal.port
            if _is_free(settings.portal.host, settings.portal.port)
            else _free_port()
        )
        token = secrets.token_urlsafe(24)
        environment = _environment(settings, data, port, token)
        children = [
            Child(name, [], environment, settings.state / "logs" / f"{name}.log")
            for name in ("stream", "portal", "learn")
        ]
        stack.callback(stop_all, children)
        for child in children:
            child.start()
        url = f"http://{settings.portal.host}:{port}"
        progress = Progress(engine, settings, url, token)
        sky = Sky(settings, alerts, progress, threading.Event())
        stack.callback(sky.stop.set)
        _await_page(url, children, stop)
        _start_threads(sky, data, packets, url, token, stack)
        if browser and not stop.is_set():
            webbrowser.open(url)
        _watch(sky, children, stop, runs_on=alerts is None)
        progress.seconds = time.monotonic() - begun
        if sky.error is not None:
            raise sky.error
        CONSOLE.print(demo_summary(progress))
        if not stop.is_set():
            _close_the_books(settings, engine)


def _close_the_books(settings: Settings, engine: sa.Engine) -> None:
    from stream.audit import audit  # noqa: PLC0415

    with reading(engine) as connection:
        parts = audit(connection, check_kafka(settings))
    CONSOLE.print(audit_table(parts))
    if any(part.problems for part in parts):
        raise ConfigurationError("the audit does not close: see the table above")


def _with_kafka(settings: Settings, stack: ExitStack) -> Settings:
    """Start a Kafka unless the settings name one; create the topics that are missing."""
    if settings.kafka.bootstrap_servers is None:
        kafka = EmbeddedKafka(settings.state / "kafka", progress=CONSOLE.print)
        with CONSOLE.status("starting Kafka"):
            stack.enter_context(kafka)
        settings = with_broker(settings, kafka)
    make_topics(settings, ALERT_PARTITIONS)
    return settings


def _environment(settings: Settings, data: DemoData, port: int, token: str) -> dict[str, str]:
    """Return the environment of the children, in addition to the settings that they read themselves."""
    ports = {
        name: section.metrics_port if _is_free(section.metrics_host, section.metrics_port) else 0
        for name, section in (("STREAM", settings.stream), ("LEARNING", settings.learning))
    }
    return {
        "NOCTULE_STATE": str(settings.state),
        "NOCTULE_KAFKA__BOOTSTRAP_SERVERS": str(settings.kafka.bootstrap_servers),
        # Another demo may be using it.
        **{f"NOCTULE_{name}__METRICS_PORT": str(free) for name, free in ports.items()},
        "NOCTULE_PORTAL__PORT": str(port),
        "NOCTULE_PORTAL__TOKEN": token,
        "NOCTULE_LEARNING__TRAINING_FOLDER": str(data.split.train),
        "NOCTULE_LEARNING__FROZEN_FOLDER": str(data.split.frozen),
    }


def _start_threads(
    sky: Sky, data: DemoData, packets: Path | None, url: str, token: str, stack: ExitStack
) -> None:
    demo = sky.settings.demo
    jobs: list[tuple[Callable[..., None], tuple[Any, ...]]]
    if packets is not None:
        jobs = [(play_packets, (sky, packets))]
    else:
        telescope = Telescope(
            PortalDesk(url, token),
            read_truth(data.split.truth),
            delay_nights=demo.telescope_delay_nights,
            budget_per_night=demo.telescope_nightly_budget,
            wait=sky.stop.wait,
        )
        jobs = [(play_nights, (sky, data.split)), (watch_telescope, (sky, telescope))]
    for target, arguments in jobs:
        thread = threading.Thread(target=target, args=arguments, name=target.__name__)
        thread.start()
        stack.callback(thread.join)
        stack.callback(sky.stop.set)


def _await_page(url: str, children: list[Child], stop: threading.Event) -> None:
    """Wait until the portal answers."""
    from portal.client import Client  # noqa: PLC0415 - httpx

    with CONSOLE.status("opening the page"):
        while not stop.wait(_LOOK_S):
            for child in children:
                child.check()
            try:
                Client(url).health()
            except UnavailableError:
                continue
            return


def _watch(sky: Sky, children: list[Child], stop: threading.Event, *, runs_on: bool) -> None:
    """Show the screen until all is accounted for, or Ctrl-C; with `runs_on` until Ctrl-C alone."""
    drained_by = None
    with Live(demo_screen(sky.progress), console=CONSOLE, refresh_per_second=2) as screen:
        while not stop.wait(_LOOK_S):
            for child in children:
                child.check()
            sky.progress.refresh()
            screen.update(demo_screen(sky.progress))
            if sky.error is not None:
                raise sky.error
            if sky.finished.is_set() and not runs_on:
                drained_by = drained_by or time.monotonic() + _DRAIN_S
                if _is_drained(sky.settings, sky.progress.engine):
                    return
                if time.monotonic() > drained_by:
                    raise UnavailableError(
                        "stream", f"not drained after {_DRAIN_S:.0f} s; see {children[0].log}"
                    )


def _is_drained(settings: Settings, engine: sa.Engine) -> bool:
    """Return whether every offset of the alert topics is accounted for."""
    with reading(engine) as connection:
        ends = read_positions(connection)
    return all(ends.get(key, 0) >= high for key, (_, high) in check_kafka(settings).items())


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return port != 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
