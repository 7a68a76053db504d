"""Other Avro readers on the same packets, if they are installed: none is a dependency.

They read container files and know no frames, so the packets are written into two of them. One has
the schema as Rubin publishes it. The other has each named type written out wherever it is used, under
a name of its own: the records' bytes are the same, and a reader that stumbles over the published
spelling is not judged only by that.
"""

from __future__ import annotations

import io
import json
import os
from contextlib import contextmanager
from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import fastavro
import pyarrow as pa
import pyarrow.compute as pc

import noctule
from benchmarks.setting import FRAME_BYTES, print_table, shortest_s
from lightcurves.surveys import LSST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ASKED: Final = ("as published", "written out", "projected")
TOP_LEVEL: Final = sorted({path.partition(".")[0] for path in LSST.paths()})
"""The wanted fields of the alert itself: all that some readers can choose by."""


def written_out(schema: Any) -> Any:
    """Return an equivalent schema that uses no named type twice."""
    return _written_out(schema, {}, "alert")


def _written_out(schema: Any, known: dict[str, Any], name: str) -> Any:
    if isinstance(schema, list):
        return [_written_out(branch, known, name) for branch in schema]
    if isinstance(schema, str):
        return _written_out(known[schema], known, name) if schema in known else schema
    if schema["type"] == "array":
        return {"type": "array", "items": _written_out(schema["items"], known, name)}
    if schema["type"] != "record":
        return schema
    known[schema["name"]] = schema
    fields = [
        {"name": one["name"], "type": _written_out(one["type"], known, f"{name}_{one['name']}")}
        for one in schema["fields"]
    ]
    return {"type": "record", "name": name, "fields": fields}


def projected(schema: Any, wanted: dict[str, Any]) -> Any:
    """Return a written-out schema with the fields of `wanted` alone, see ``Survey.tree``."""
    if isinstance(schema, list):
        return [projected(branch, wanted) for branch in schema]
    if isinstance(schema, str) or schema["type"] not in {"array", "record"}:
        return schema
    if schema["type"] == "array":
        return {"type": "array", "items": projected(schema["items"], wanted)}
    fields = [
        {"name": one["name"], "type": projected(one["type"], wanted[one["name"]])}
        for one in schema["fields"]
        if one["name"] in wanted
    ]
    return {**schema, "fields": fields}


class Alerts(NamedTuple):
    """The same packets in each form that a reader may want."""

    path: str
    bodies: list[bytes]
    schema: Any
    wanted: Any
    """The schema's wanted part, written out."""


class Works(NamedTuple):
    """What a reader can do; it gives what Arrow takes as a table."""

    full: Callable[[], Any] | None = None
    projected: Callable[[], Any] | None = None


def _noctule(alerts: Alerts) -> Works:
    return Works(projected=lambda: noctule.read_alerts(alerts.path))


def _by_columns(module: str) -> Callable[[Alerts], Works]:
    def works(alerts: Alerts) -> Works:
        read_avro = import_module(module).read_avro
        return Works(
            lambda: read_avro(alerts.path), lambda: read_avro(alerts.path, columns=TOP_LEVEL)
        )

    return works


def _datafusion(alerts: Alerts) -> Works:
    datafusion = import_module("datafusion")
    config = datafusion.SessionConfig().with_target_partitions(1)
    context = datafusion.SessionContext(config)
    wanted = pa.schema(list(_arrow_type(alerts.wanted)))

    def read(schema: pa.Schema | None = None) -> Any:
        return context.read_avro(alerts.path, schema=schema).to_arrow_table()

    return Works(read, lambda: read(wanted))


def _arrow_type(schema: Any) -> pa.DataType:
    if isinstance(schema, list):
        return _arrow_type(next(branch for branch in schema if branch != "null"))
    if isinstance(schema, str):
        names = {"long": "int64", "int": "int32"}
        return pa.type_for_alias(names.get(schema, schema))
    if schema["type"] == "array":
        return pa.list_(_arrow_type(schema["items"]))
    return pa.struct([(field["name"], _arrow_type(field["type"])) for field in schema["fields"]])


def _duckdb(alerts: Alerts) -> Works:
    connection = import_module("duckdb_ext").init(import_module("duckdb").connect())
    connection.execute("set threads = 1")

    def read(what: str) -> Any:
        query = f"select {what} from read_avro('{alerts.path}')"  # noqa: S608 - a file of our own
        return connection.sql(query).fetch_arrow_table()

    return Works(lambda: read("*"), lambda: read(", ".join(TOP_LEVEL)))


def _chdb(alerts: Alerts) -> Works:
    chdb = import_module("chdb")

    def read(what: str) -> Any:
        query = f"select {what} from file('{alerts.path}', 'Avro') settings max_threads = 1"  # noqa: S608 - a file of our own
        return chdb.query(query, "ArrowTable")

    return Works(lambda: read("*"), lambda: read(", ".join(LSST.paths())))


def _avro_to_arrow(alerts: Alerts) -> Works:
    convert = import_module("avro_to_arrow").avro_to_arrow

    def read() -> Any:
        return convert(alerts.schema, [_record(body, alerts.schema) for body in alerts.bodies])[0]

    return Works(read)


def _pyruhvro(alerts: Alerts) -> Works:
    decode = import_module("pyruhvro").deserialize_array
    os.environ["RUST_BACKTRACE"] = "0"  # it panics at a packet
    return Works(lambda: decode(alerts.bodies, json.dumps(alerts.schema)))


READERS: Final[dict[str, Callable[[Alerts], Works]]] = {
    "noctule": _noctule,
    "datafusion": _datafusion,
    "polars-avro": _by_columns("polars_avro"),
    "jetliner": _by_columns("jetliner"),
    "polars": _by_columns("polars"),
    "chdb": _chdb,
    "duckdb duckdb-ext duckdb-ext-avro": _duckdb,
    "polars-fastavro": _by_columns("polars_fastavro"),
    "avro-to-arrow line-profiler": _avro_to_arrow,
    "pyruhvro": _pyruhvro,
}
"""The readers, by the arguments of ``pip install``."""


def compare_readers(
    packets: list[bytes], schema: Any, folder: Path, fastavro_s: float
) -> dict[str, dict[str, float | str]]:
    """Print a table; return seconds a packet, or why there are none, by reader and what it read."""
    bodies = [packet[FRAME_BYTES:] for packet in packets]
    records = [_record(body, schema) for body in bodies]
    rows = sum(len(record["prvDiaSources"] or ()) for record in records)
    spelled = written_out(schema)
    forms = []
    for name, spelling in (("published", schema), ("written_out", spelled)):
        path = folder / f"{name}.avro"
        with path.open("wb") as file:
            fastavro.writer(file, spelling, records, codec="null")
        forms.append(Alerts(str(path), bodies, spelling, projected(spelled, LSST.tree())))
    with _one_core():
        results = {name: _figures(reader, forms, rows) for name, reader in READERS.items()}
    _print(results, fastavro_s)
    return results


def _record(body: bytes, schema: Any) -> Any:
    return fastavro.schemaless_reader(io.BytesIO(body), schema, None)


@contextmanager
def _one_core() -> Iterator[None]:
    """Keep this thread, and those that readers start, on one core: not all have a setting for it."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    yield
    os.sched_setaffinity(0, cores)


def _figures(
    reader: Callable[[Alerts], Works], forms: list[Alerts], rows: int
) -> dict[str, float | str]:
    try:
        published, spelled = (reader(alerts) for alerts in forms)
    except ImportError:
        return {}
    works = dict(zip(ASKED, (published.full, spelled.full, spelled.projected), strict=True))
    packets = len(forms[0].bodies)
    return {what: _seconds(work, packets, rows) for what, work in works.items() if work}


def _seconds(work: Callable[[], Any], packets: int, rows: int) -> float | str:
    try:
        _check(work(), packets, rows)
        return shortest_s(work, 1.0) / packets
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - a panic in Rust is no Exception
        return f"{type(error).__name__}: {error}".splitlines()[0]


def _check(answer: Any, packets: int, rows: int) -> None:
    table = pa.table(answer)
    assert table.num_rows == packets
    for name in table.column_names:
        if name.startswith("prvDiaSources"):
            assert pc.sum(pc.list_value_length(table[name])).as_py() == rows


def _print(results: dict[str, dict[str, float | str]], fastavro_s: float) -> None:
    rows: list[tuple[str, ...]] = []
    notes = []
    for packages, figures in results.items():
        if not figures:
            notes.append(f"not installed: pip install --target FOLDER {packages}")
            continue
        package = packages.partition(" ")[0]
        reader = f"{package} {metadata.version(package)}"
        times = [value for value in figures.values() if isinstance(value, float)]
        cells = [figures.get(name, "-") for name in ASKED]
        shown = [f"{1e3 * cell:.3f}" if isinstance(cell, float) else cell for cell in cells]
        ratio = f"{fastavro_s / min(times):.1f}" if times else "-"
        rows.append((reader, *("fails" if ": " in cell else cell for cell in shown), ratio))
        notes += [
            f"{reader}, {name}: {cell}" for name, cell in figures.items() if isinstance(cell, str)
        ]
    print_table(("ms a packet from a container file", *ASKED, "best, x fastavro"), rows)
    print("\n".join([*notes, ""]))
