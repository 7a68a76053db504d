"""score_batch: framed packets in, rows and a table of light curves out. Pure except for the clock.

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
from lightcurves.reasons import DESCRIPTIONS, NotEvaluated, RejectReason
from lightcurves.schemas import FolderSchemas, RegistrySchemas, SchemaSource, package_schemas
from models.inputs import Inputs
from models.record import SCORE_FIELDS
from models.scoring import Model, load_model, score_columns
from store.sky import NOWHERE, cells_of
from stream.rows import ROWS_SCHEMA, SCORE_COLUMNS
from stream.stages import Stages
from stream.versions import Versions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

# For each survey a worker keeps the champion and, during a replay or a swap, one other version.
_MODELS_KEPT: Final = 2
_TOO_MANY_GUILTY: Final = 16
_DETAIL_LENGTH: Final = 500


@dataclass(frozen=True)
class ScorerConfig:
    """All that a worker needs to score; plain values, so that Spark can pass them as text.

    Attributes
    ----------
    models_folder
        Folder of the artifacts, each under its version.
    schema_source, schema_location, schema_timeout_s
        ``package``, ``folder`` or ``registry``, its folder or URL, and the time-out of one request.
    max_packet_bytes
        Longer packets are rejected.
    strategy_features
        Features that the strategy of requests reads of every scored alert.
    """

    models_folder: str
    schema_source: str = "package"
    schema_location: str = ""
    schema_timeout_s: float = 5.0
    max_packet_bytes: int = 16 << 20
    strategy_features: tuple[str, ...] = ()

    def schemas(self) -> SchemaSource:
        """Return the schema source that is named."""
        if self.schema_source == "registry":
            return RegistrySchemas(self.schema_location, self.schema_timeout_s)
        if self.schema_source == "folder":
            return FolderSchemas(Path(self.schema_location))
        return package_schemas()


class Scored(NamedTuple):
    """The results of a batch of packets, one row each, in their order.

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

    def for_delta(self, where: dict[str, pa.Array]) -> pa.Table:
        """Return the rows for Delta, of readable packets only; `where` holds further columns of all rows."""
        scores = {name: self.rows[name] for name in SCORE_COLUMNS}
        table = pa.table(
            {**where, **scores, "light_curve": self.light_curves, "features": self.features}
        )
        table = table.select(DELTA_COLUMNS)
        return table if self.readable.all() else table.filter(pa.array(self.readable))


@dataclass
class Scorer:
    """Scores packets with any versions of the models, from any thread; caches models and plans."""

    config: ScorerConfig
    decoder: Decoder = field(init=False)
    _models: OrderedDict[str, Model] = field(default_factory=OrderedDict, init=False)
    _loading: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __post_init__(self) -> None:
        """Open the schema source."""
        self.decoder = Decoder(self.config.schemas(), max_packet_bytes=self.config.max_packet_bytes)

    def models(self, versions: str) -> dict[str, Model]:
        """Return the models by survey, each loaded once; `versions` is a text of :class:`Versions`."""
        named = Versions.parse(versions).by_survey
        with self._loading:
            models = {survey: self._model(version) for survey, version in named.items()}
            while len(self._models) > _MODELS_KEPT * max(1, len(named)):
                self._models.popitem(last=False)
        return models

    def _model(self, version: str) -> Model:
        if version not in self._models:
            loaded = load_model(Path(self.config.models_folder) / version)
            if loaded.manifest.model_version != version:
                raise ConfigurationError(f"models/{version} holds {loaded.manifest.model_version}")
            self._models[version] = loaded
        self._models.move_to_end(version)
        return self._models[version]

    def score_packets(self, packets: list[bytes] | Packets, versions: str) -> Scored:
        """Decode framed packets, and score each with its survey's model of `versions`.

        A packet on which the program fails, even when it is scored alone, is rejected as ``failed``.

        Raises
        ------
        NoctuleError
            A service is unavailable, or the configuration is wrong: no packet is to blame.
        Exception
            The program fails on each of many packets, or does not fail again: no packet is to blame.
        """
        buffer = packets_in_place(packets) if isinstance(packets, list) else packets
        models = self.models(versions)
        try:
            return self._score(buffer, models)
        except NoctuleError:
            raise
        except Exception:
            guilty = self._guilty(buffer, np.arange(buffer.starts.size), models)
            if not guilty or buffer.starts.size == len(guilty) >= _TOO_MANY_GUILTY:
                raise
        ends = buffer.ends.copy()
        ends[list(guilty)] = buffer.starts[list(guilty)]
        return with_failed(self._score(buffer._replace(ends=ends), models), guilty)

    def _score(self, packets: Packets, models: Mapping[str, Model]) -> Scored:
        stages = Stages()
        with stages("decode"):
            inputs = Inputs(*self.decoder.decode_both(packets))
        return score_batch(inputs, models, stages, self.config.strategy_features)

    def _guilty(
        self, packets: Packets, members: NDArray[np.int64], models: Mapping[str, Model]
    ) -> dict[int, str]:
        """Return the packets that fail when scored alone, with the error of each; found by halving."""
        part = Packets(packets.data, packets.starts[members], packets.ends[members])
        try:
            self._score(part, models)
        except NoctuleError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, one packet must not stop the others
            if members.size == 1:
                return {int(members[0]): f"{type(error).__name__}: {error}"[:_DETAIL_LENGTH]}
            half = members.size // 2
            first = self._guilty(packets, members[:half], models)
            return first | self._guilty(packets, members[half:], models)
        return {}

    def score_arrow(
        self, batches: Iterator[pa.RecordBatch], versions: str
    ) -> Iterator[pa.RecordBatch]:
        """Score the column ``packet`` of Arrow batches: the body of a ``mapInArrow`` function.

        The result has no table of rejects: the ``reason`` of an unreadable packet is its reject reason.
        """
        for batch in batches:
            inputs = Inputs(*self.decoder.decode_both(packets_of(batch.column("packet"))))
            scored = score_batch(inputs, self.models(versions))
            scored.rows["reason"] = pc.coalesce(scored.rows["reject_reason"], scored.rows["reason"])
            arrays = [
                scored.rows[name].cast(ROWS_SCHEMA.field(name).type) for name in SCORE_COLUMNS
            ]
            yield pa.RecordBatch.from_arrays(arrays, names=list(SCORE_COLUMNS))


def with_failed(scored: Scored, guilty: Mapping[int, str]) -> Scored:
    """Return `scored` with the `guilty` packets, which were left out, rejected, their errors as details."""
    failed = dict.fromkeys(guilty, str(RejectReason.FAILED))
    rows = dict(scored.rows)
    for name, text_of in (("reject_reason", failed), ("detail", guilty)):
        texts = [text_of.get(k, text) for k, text in enumerate(rows[name].to_pylist())]
        rows[name] = pa.array(texts, pa.string())
    return scored._replace(rows=rows)


def score_batch(
    inputs: Inputs,
    models: Mapping[str, Model],
    stages: Stages | None = None,
    strategy_features: Sequence[str] = (),
) -> Scored:
    """Score decoded alerts, each with its survey's model.

    An alert of a survey without a model is not evaluated (``no_model_for_survey``): only its light curve and
    its age are given.

    Parameters
    ----------
    inputs
        The result of :meth:`lightcurves.decode.Decoder.decode_both`.
    models
        By survey; one version of each scores the whole batch.
    stages
        The time that has already been spent on these alerts.
    strategy_features
        See :class:`ScorerConfig`.
    """
    stages = Stages() if stages is None else stages
    stored = stored_names(models.values())
    parts = _by_survey(inputs)
    columns = [
        {
            **(
                _scored(part, models[survey], stored, stages)
                if survey in models
                else _not_scored(part, stored)
            ),
            "strategy_features": _listed(part, strategy_features),
        }
        for survey, part, _ in parts
    ]
    with stages("rows"):
        together = columns[0]
        if len(parts) > 1:
            order = pa.array(np.argsort(np.concatenate([rows for _, _, rows in parts])))
            together = {
                name: pa.concat_arrays([part[name] for part in columns]).take(order)
                for name in together
            }
        return _lay_out(inputs.table, together, stages.seconds)


def stored_names(models: Iterable[Model]) -> tuple[str, ...]:
    """Return the features that are stored of alerts: the default ones, and those that any model reads."""
    read = (name for model in models for name in model.manifest.features)
    return tuple(dict.fromkeys((*names_in(default_families()), *read)))


def _by_survey(inputs: Inputs) -> list[tuple[str, Inputs, NDArray[np.int64]]]:
    """Return each survey's rows and their numbers; rejected rows belong to no survey, named "".

    If there is only one survey, it gets all rows, rejected ones too: nothing is copied.
    """
    column = inputs.column("survey").combine_chunks().dictionary_encode()
    surveys = column.dictionary.to_pylist()
    if len(surveys) <= 1:
        return [(surveys[0] if surveys else "", inputs, np.arange(len(inputs)))]
    codes = np.asarray(column.indices.fill_null(-1))
    every = [(survey, np.flatnonzero(codes == k)) for k, survey in enumerate(surveys)]
    every.append(("", np.flatnonzero(codes < 0)))
    return [(survey, inputs.take(rows), rows) for survey, rows in every if rows.size]


def _scored(
    inputs: Inputs, model: Model, stored: tuple[str, ...], stages: Stages
) -> dict[str, pa.Array]:
    """Return the scores of one survey's alerts by `model`, and their features named in `stored`."""
    names = stored_names([model])
    with stages("features"):
        inputs.features(names)
    with stages("score"):
        scores = model.score_inputs(inputs)
    with stages("rows"):
        features = _features(inputs, names, stored)
        return {**score_columns(model, scores), "features": features}


def _listed(inputs: Inputs, names: Sequence[str]) -> pa.Array:
    """Return the features `names` of each row as a list, null if `names` is empty."""
    kind = pa.list_(pa.float64())
    if not names:
        return pa.nulls(len(inputs), kind)
    values = inputs.features(names)
    flat = pa.array(values.ravel(), mask=np.isnan(values).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, len(names)).cast(kind)


def _not_scored(inputs: Inputs, stored: tuple[str, ...]) -> dict[str, pa.Array]:
    """Return the same columns for alerts that no model scores."""
    n, ages = len(inputs), inputs.ages()
    return {
        **{field.name: pa.nulls(n, field.arrow) for field in SCORE_FIELDS},
        "reason": pa.repeat(pa.scalar(str(NotEvaluated.NO_MODEL_FOR_SURVEY)), n),
        "days_since_first_detection": pa.array(ages, mask=np.isnan(ages)),
        "features": _features(inputs, (), stored),
    }


def _lay_out(
    alerts: pa.Table, columns: dict[str, pa.Array], stages_s: Mapping[str, float]
) -> Scored:
    """Return the rows of alerts, with `columns` computed from them; `stages_s` are the seconds spent."""
    rejected = alerts["reject_reason"].combine_chunks()
    readable: NDArray[np.bool_] = np.asarray(rejected.is_null())
    rows = {**_alert_columns(alerts), **columns}
    features = rows.pop("features")
    rows["reject_reason"] = rejected
    rows["detail"] = pa.array(
        [
            None if reason is None else DESCRIPTIONS[RejectReason(reason)]
            for reason in rejected.to_pylist()
        ],
        pa.string(),
    )
    if not readable.all():
        for name in ("reason", "model_version", "feature_digest"):
            rows[name] = pc.if_else(pa.array(readable), rows[name], None)
    return Scored(rows, alerts["light_curve"], features, readable, stages_s)


def delta_schema() -> pa.Schema:
    """Return the columns of the Delta table of alerts, with their Arrow types.

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
    places = (_degrees(columns[name]) for name in ("ra_deg", "dec_deg"))
    cells = cells_of(*places)
    columns["healpix"] = pa.array(cells, mask=cells == NOWHERE)
    columns["n_points"] = pa.chunked_array(lengths, pa.int32()).combine_chunks()
    return columns


def _degrees(column: pa.Array) -> NDArray[np.float64]:
    return np.asarray(column.fill_null(float("nan")), np.float64)


def _features(inputs: Inputs, names: tuple[str, ...], stored: tuple[str, ...]) -> pa.StructArray:
    """Return a struct of the features `stored`; null if not evaluated, or not among `names`."""
    values, absent = inputs.features(names), inputs.why(names) != 0
    columns = {name: pa.nulls(len(inputs), pa.float64()) for name in stored if name not in names}
    for k, name in enumerate(names):
        columns[name] = pa.array(np.ascontiguousarray(values[:, k]), mask=absent[:, k])
    return pa.StructArray.from_arrays([columns[name] for name in stored], names=list(stored))
