"""score_batch: framed packets in, rows and a table of light curves out. Pure but for the clock.

The same function serves the live stream, a plain loop and ``mapInArrow``; a test proves that the
three agree to the last bit.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lightcurves.arrays import LIGHT_CURVE_TYPE
from lightcurves.decode import Decoder, Packets, packets_in_place, packets_of
from lightcurves.errors import ConfigurationError, NoctuleError
from lightcurves.features.registry import REGISTERED, default_families, names_in
from lightcurves.reasons import DESCRIPTIONS, RejectReason
from lightcurves.schemas import FolderSchemas, RegistrySchemas, SchemaSource, package_schemas
from models.inputs import Inputs
from models.scoring import Model, Scores, load_model, score_columns
from stream.rows import ROWS_SCHEMA, SCORE_COLUMNS
from stream.stages import Stages

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

# A worker serves the champion and, during a replay or a swap, one version beside it.
_MODELS_KEPT: Final = 2
_TOO_MANY_GUILTY: Final = 16
_DETAIL_LENGTH: Final = 500


@dataclass(frozen=True)
class ScorerConfig:
    """All that a worker needs to score; plain values, so that Spark can carry them as text.

    Attributes
    ----------
    models_folder
        Artifacts lie here by version.
    schema_source, schema_location, schema_timeout_s
        ``package``, ``folder`` or ``registry``, its folder or URL, and the time-out of one request.
    max_packet_bytes
        Longer packets are rejected.
    """

    models_folder: str
    schema_source: str = "package"
    schema_location: str = ""
    schema_timeout_s: float = 5.0
    max_packet_bytes: int = 16 << 20

    def schemas(self) -> SchemaSource:
        """Return the schema source that is named."""
        if self.schema_source == "registry":
            return RegistrySchemas(self.schema_location, self.schema_timeout_s)
        if self.schema_source == "folder":
            return FolderSchemas(Path(self.schema_location))
        return package_schemas()


class Scored(NamedTuple):
    """What came of a batch of packets, one row each, in their order.

    Attributes
    ----------
    rows
        The score columns of :mod:`stream.rows`, ``reject_reason`` and ``detail``.
    light_curves, features
        The alerts' light curves, and their features as a struct of float64, null where not evaluated.
    readable
        bool: which rows were decoded.
    stages_s
        Seconds by stage of :mod:`stream.stages`.
    """

    rows: dict[str, pa.Array]
    light_curves: pa.ChunkedArray
    features: pa.StructArray
    readable: NDArray[np.bool_]
    stages_s: Mapping[str, float]

    def to_keep(self, where: dict[str, pa.Array]) -> pa.Table:
        """Return what goes to Delta of the readable packets; `where` are columns of all rows."""
        scores = {name: self.rows[name] for name in SCORE_COLUMNS}
        table = pa.table(
            {**where, **scores, "light_curve": self.light_curves, "features": self.features}
        )
        table = table.select(DELTA_COLUMNS)
        return table if self.readable.all() else table.filter(pa.array(self.readable))


@dataclass
class Scorer:
    """Scores packets with any version of the model, in any thread; keeps models and plans."""

    config: ScorerConfig
    decoder: Decoder = field(init=False)
    _models: OrderedDict[str, Model] = field(default_factory=OrderedDict, init=False)
    _loading: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __post_init__(self) -> None:
        """Open the schema source."""
        self.decoder = Decoder(self.config.schemas(), max_packet_bytes=self.config.max_packet_bytes)

    def model(self, version: str) -> Model:
        """Return the model of `version`, loaded once."""
        with self._loading:
            if version not in self._models:
                loaded = load_model(Path(self.config.models_folder) / version)
                if loaded.manifest.model_version != version:
                    raise ConfigurationError(
                        f"models/{version} holds {loaded.manifest.model_version}"
                    )
                self._models[version] = loaded
            self._models.move_to_end(version)
            while len(self._models) > _MODELS_KEPT:
                self._models.popitem(last=False)
            return self._models[version]

    def score_packets(self, packets: list[bytes] | Packets, version: str) -> Scored:
        """Decode and score framed packets with model `version`.

        A packet on which the program fails, whatever lies around it, is rejected as ``failed``.

        Raises
        ------
        NoctuleError
            A service is away, or something is set up wrongly: no packet's fault.
        Exception
            The program fails on all of many packets, or not again: no packet's fault either.
        """
        laid = packets_in_place(packets) if isinstance(packets, list) else packets
        model = self.model(version)
        try:
            return self._score(laid, model)
        except NoctuleError:
            raise
        except Exception:
            guilty = self._guilty(laid, np.arange(laid.starts.size), model)
            if not guilty or laid.starts.size == len(guilty) >= _TOO_MANY_GUILTY:
                raise
        ends = laid.ends.copy()
        ends[list(guilty)] = laid.starts[list(guilty)]
        return with_failed(self._score(laid._replace(ends=ends), model), guilty)

    def _score(self, packets: Packets, model: Model) -> Scored:
        stages = Stages()
        with stages("decode"):
            alerts = self.decoder.decode(packets)
        return score_batch(alerts, model, stages)

    def _guilty(self, packets: Packets, members: NDArray[np.int64], model: Model) -> dict[int, str]:
        """Return which of the packets fail alone, and how, by halving."""
        part = Packets(packets.data, packets.starts[members], packets.ends[members])
        try:
            self._score(part, model)
        except NoctuleError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, one packet must not stop the others
            if members.size == 1:
                return {int(members[0]): f"{type(error).__name__}: {error}"[:_DETAIL_LENGTH]}
            half = members.size // 2
            first = self._guilty(packets, members[:half], model)
            return first | self._guilty(packets, members[half:], model)
        return {}

    def score_arrow(
        self, batches: Iterator[pa.RecordBatch], version: str
    ) -> Iterator[pa.RecordBatch]:
        """Score the column ``packet`` of Arrow batches: the body of a ``mapInArrow`` function.

        There is no table of rejects here: a packet that cannot be read has why as its ``reason``.
        """
        for batch in batches:
            packets = packets_of(batch.column("packet"))
            scored = score_batch(self.decoder.decode(packets), self.model(version))
            scored.rows["reason"] = pc.coalesce(scored.rows["reject_reason"], scored.rows["reason"])
            arrays = [
                scored.rows[name].cast(ROWS_SCHEMA.field(name).type) for name in SCORE_COLUMNS
            ]
            yield pa.RecordBatch.from_arrays(arrays, names=list(SCORE_COLUMNS))


def with_failed(scored: Scored, guilty: Mapping[int, str]) -> Scored:
    """Return what was scored, the `guilty` packets, which were left out, rejected with what they did."""
    failed = dict.fromkeys(guilty, str(RejectReason.FAILED))
    rows = dict(scored.rows)
    for name, told in (("reject_reason", failed), ("detail", guilty)):
        texts = [told.get(k, text) for k, text in enumerate(rows[name].to_pylist())]
        rows[name] = pa.array(texts, pa.string())
    return scored._replace(rows=rows)


def score_batch(alerts: pa.Table, model: Model, stages: Stages | None = None) -> Scored:
    """Score decoded alerts.

    Parameters
    ----------
    alerts
        From :meth:`lightcurves.decode.Decoder.decode`.
    model
        One version scores the whole batch.
    stages
        What has been spent on these alerts already.
    """
    stages = Stages() if stages is None else stages
    inputs = Inputs(alerts)
    with stages("features"):
        inputs.features(stored_names(model))
    with stages("score"):
        scores = model.score_inputs(inputs)
    with stages("rows"):
        return lay_out(model, scores, stages.seconds)


def stored_names(model: Model) -> tuple[str, ...]:
    """Return the features that are kept of every alert: the default ones, and those the model reads."""
    return tuple(dict.fromkeys((*names_in(default_families()), *model.manifest.features)))


def lay_out(model: Model, scores: Scores, stages_s: Mapping[str, float]) -> Scored:
    """Return what was scored, and what `model` makes of it, as rows; `stages_s` is what it took."""
    alerts = scores.inputs.table
    rejected = alerts["reject_reason"].combine_chunks()
    readable: NDArray[np.bool_] = np.asarray(rejected.is_null())
    rows = {**_alert_columns(alerts), **score_columns(model, scores)}
    rows["reject_reason"] = rejected
    rows["detail"] = pa.array(
        [
            None if reason is None else DESCRIPTIONS[RejectReason(reason)]
            for reason in rejected.to_pylist()
        ],
        pa.string(),
    )
    reason = pa.array(scores.reason, pa.string(), mask=~readable)
    features = _features(scores.inputs, stored_names(model))
    return Scored({**rows, "reason": reason}, alerts["light_curve"], features, readable, stages_s)


def delta_schema() -> pa.Schema:
    """Return the columns of the Delta table of alerts, in memory's types.

    Its features are all that this version computes; a file holds those that were computed for its alerts.
    """
    where = [("topic", pa.string()), ("kafka_partition", pa.int32()), ("kafka_offset", pa.int64())]
    times = [("arrival_ms", pa.int64()), ("processed_ms", pa.int64()), ("run_id", pa.string())]
    scores = [(name, ROWS_SCHEMA.field(name).type) for name in SCORE_COLUMNS]
    every = names_in(tuple(REGISTERED.values()))
    features = pa.struct([(name, pa.float64()) for name in every])
    return pa.schema(
        [*where, *times, *scores, ("light_curve", LIGHT_CURVE_TYPE), ("features", features)]
    )


DELTA_COLUMNS: Final = tuple(delta_schema().names)


def _alert_columns(alerts: pa.Table) -> dict[str, pa.Array]:
    names = (
        "survey", "dia_source_id", "object_id", "ss_object_id", "t_mjd_tai", "ra_deg", "dec_deg",
        "flux_njy", "sigma_njy",
    )  # fmt: skip
    columns: dict[str, pa.Array] = {name: alerts[name].combine_chunks() for name in names}
    columns["band"] = alerts["band"].cast(pa.string()).combine_chunks()
    lengths = [chunk.value_lengths() for chunk in alerts["light_curve"].chunks]
    columns["n_points"] = pa.chunked_array(lengths, pa.int32()).combine_chunks()
    return columns


def _features(inputs: Inputs, names: tuple[str, ...]) -> pa.StructArray:
    values, absent = inputs.features(names), inputs.why(names) != 0
    columns = [
        pa.array(np.ascontiguousarray(values[:, k]), mask=absent[:, k]) for k in range(len(names))
    ]
    return pa.StructArray.from_arrays(columns, names=list(names))
