"""Any Avro schema, any projection: the compiled plan reads what fastavro reads."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field, replace
from typing import Any

import fastavro
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lightcurves.columns import (
    ALERT_FLOAT64,
    ALERT_INT64,
    FLAGS,
    KIND_ALERT,
    KIND_FORCED,
    KIND_SOURCE,
    Columns,
)
from lightcurves.decode import decode_columns, packets_of
from lightcurves.errors import ConfigurationError
from lightcurves.interpreter import ERRORS, NULL_INT64
from lightcurves.plan import (
    MAX_DEPTH,
    MAX_NESTED,
    MAX_SEGMENTS,
    MAX_VALUES,
    Op,
    Shape,
    compile_plan,
)
from lightcurves.reasons import RejectReason
from lightcurves.surveys import LSST
from lightcurves.surveys.declare import Band, History, Survey
from tests.lightcurves.avro import BANDS, decode, encode, sized, varint

PRIMITIVES = ("null", "boolean", "int", "long", "float", "double", "bytes", "string")
REAL = {"null", "boolean", "int", "long", "float", "double", "enum"}
WHOLE = {"null", "boolean", "int", "long", "enum"}
TEXT = {"null", "string"}
FLAG = {"null", "boolean"}
BAND_CODES = {**{name: code for code, name in enumerate(BANDS)}, "12345678": 7}
SPELLED = (*LSST.bands, Band("ztf_r", 644.0, "r", "12345678"))
NOWHERE = "no such field"
POINT = {name: f"no {name}" for name in ("t_mjd_tai", "visit", "band", "flux_njy", "sigma_njy")}


@dataclass
class SchemaMaker:
    """Random schemas of every kind that Avro has, with named types that are used again."""

    chance: random.Random
    named: list[str] = field(default_factory=list)
    count: int = 0

    def name(self) -> str:
        self.count += 1
        return f"{self.chance.choice(('survey', 'survey.v1', 'other'))}.type{self.count}"

    def record(self, depth: int) -> dict[str, Any]:
        name = self.name()
        fields = [
            {"name": f"f{number}", "type": self.any(depth - 1)}
            for number in range(self.chance.randint(0, 5))
        ]
        self.named.append(name)  # known only after its fields: a record never contains itself
        return {"type": "record", "name": name, "fields": fields}

    def top(self) -> dict[str, Any]:
        """A record with something to read: leaves and lists of records, here and in a part."""
        whole: dict[str, Any] = self.record(4)
        self.named.remove(whole["name"])
        for _ in range(2):
            part: dict[str, Any] = {
                "type": "record",
                "name": self.name(),
                "fields": self.readable(),
            }
            self.named.append(str(part["name"]))
            whole["fields"] += [{"name": f"part{self.count}", "type": part}, *self.readable()]
        return whole

    def readable(self) -> list[dict[str, Any]]:
        item: dict[str, Any] = self.record(2)
        item["fields"] += [{"name": f"x{k}", "type": self._optional(0)} for k in range(3)]
        items = {"type": "array", "items": item}
        wanted = [self._optional(0), self._primitive(0), items, ["null", items]]
        picked = [*wanted[:2], self.chance.choice(wanted[2:])]  # a type may be defined but once
        self.count += 1
        return [{"name": f"r{self.count}_{k}", "type": kind} for k, kind in enumerate(picked)]

    def any(self, depth: int) -> Any:
        kinds = ["primitive", "primitive", "optional", "wrapped", "enum", "fixed"]
        if self.named:
            kinds.append("again")
        if depth > 0:
            kinds += ["record", "array", "array", "map", "union"]
        return getattr(self, "_" + self.chance.choice(kinds))(depth)

    def _primitive(self, _depth: int) -> Any:
        return self.chance.choice(PRIMITIVES)

    def _wrapped(self, _depth: int) -> Any:
        return {"type": self.chance.choice(PRIMITIVES), "logicalType": "of-ours"}

    def _optional(self, _depth: int) -> Any:
        pair = ["null", self.chance.choice([*PRIMITIVES[1:], self._enum(0)])]
        return pair if self.chance.random() < 0.5 else pair[::-1]

    def _enum(self, _depth: int) -> Any:
        name = self.name()
        return {"type": "enum", "name": name, "symbols": [f"S{n}" for n in range(70)]}

    def _fixed(self, _depth: int) -> Any:
        name = self.name()
        self.named.append(name)
        return {"type": "fixed", "name": name, "size": self.chance.choice((0, 1, 16))}

    def _again(self, _depth: int) -> Any:
        return self.chance.choice(self.named)

    def _record(self, depth: int) -> Any:
        return self.record(depth)

    def _array(self, depth: int) -> Any:
        return {"type": "array", "items": self.any(depth - 1)}

    def _map(self, depth: int) -> Any:
        return {"type": "map", "values": self.any(depth - 1)}

    def _union(self, depth: int) -> Any:
        primitives: list[Any] = self.chance.sample(PRIMITIVES, self.chance.randint(0, 5))
        cut = self.chance.randint(0, len(primitives))
        branches = primitives[:cut]
        if self.chance.random() < 0.5:
            branches.append(self.chance.choice((self._array, self._map))(depth))
        branches += [self.record(depth - 1) for _ in range(self.chance.randint(0, 2))]
        return branches + primitives[cut:] or ["null"]


@dataclass
class Fields:
    """What lies at the paths of a schema: ``leaf`` kinds outside of arrays, ``item`` kinds within."""

    names: dict[str, Any] = field(default_factory=dict)
    kinds: dict[str, set[str]] = field(default_factory=dict)
    histories: dict[str, Fields] = field(default_factory=dict)

    def walk(self, schema: Any, path: str, *, repeated: bool = False) -> None:
        if isinstance(schema, list):
            for branch in schema:
                if branch in ("null", {"type": "null", "logicalType": "of-ours"}):
                    self.kinds.setdefault(path, set()).add("null")
                else:
                    self.walk(branch, path, repeated=repeated)
        elif isinstance(schema, str) and schema in self.names:
            self.walk(self.names[schema], path, repeated=repeated)
        else:
            kind = schema if isinstance(schema, str) else schema["type"]
            found = "always null" if kind == "null" else kind
            self.kinds.setdefault(path, set()).add("repeated" if repeated else found)
            self.walk_below(schema, path, repeated=repeated)

    def walk_below(self, schema: Any, path: str, *, repeated: bool) -> None:
        if isinstance(schema, str):
            return
        if "name" in schema:
            self.names[schema["name"]] = schema
        for item in schema.get("fields", ()):
            self.walk(item["type"], f"{path}.{item['name']}".lstrip("."), repeated=repeated)
        if schema["type"] in {"array", "map"}:
            self.walk_items(schema.get("items", schema.get("values")), path, repeated=repeated)

    def walk_items(self, items: Any, path: str, *, repeated: bool) -> None:
        self.walk(items, path, repeated=True)
        if repeated:
            return
        inner = Fields(self.names)
        inner.walk(items, "")
        if path in self.histories:  # a union of two lists: not followed here
            inner.kinds[""] = {"two lists"}
        self.histories[path] = inner

    def through_records(self, path: str) -> bool:
        """Whether all above `path` are records, so that it can be followed in any value."""
        above = path.split(".")[:-1]
        return all(
            self.kinds[".".join(above[:length])] <= {"record", "null"}
            for length in range(1, len(above) + 1)
        )

    def paths(self, allowed: set[str]) -> list[str]:
        return [
            path
            for path, kinds in self.kinds.items()
            if path and kinds <= allowed and kinds != {"null"} and self.through_records(path)
        ]


def any_survey(schema: Any, chance: random.Random) -> Survey:
    """A random mapping of a schema's fields to the columns that can take them."""
    found = Fields()
    found.walk(schema, "")
    histories = []
    kinds = [KIND_FORCED, KIND_SOURCE]
    chance.shuffle(kinds)
    for path, items in found.histories.items():
        # The path must always be an array (or null), and its items records.
        lists = found.kinds[path] - {"repeated"} <= {"null", "array", "map"}
        if lists and found.through_records(path) and items.kinds.get("") == {"record"}:
            columns = point(items, chance)
            flags = flags_of(items, chance, set(columns.values()))
            if not all(name.startswith(NOWHERE) for name in columns.values()):
                histories.append(History(path, KIND_SOURCE, columns, flags=flags))
    chance.shuffle(histories)
    histories = [replace(one, kind=kind) for one, kind in zip(histories, kinds, strict=False)]
    inside = tuple(f"{part.path}." for part in histories)
    alert: dict[str, str] = {}
    for names, allowed in ((ALERT_INT64, WHOLE), (ALERT_FLOAT64, REAL), (("band",), TEXT)):
        for name in names:
            free = [
                p
                for p in found.paths(allowed)
                if p not in alert.values() and not p.startswith(inside)
            ]
            alert[name] = chance.choice(free) if free and chance.random() < 0.9 else NOWHERE + name
    flags = flags_of(found, chance, set(alert.values()), inside)
    return replace(
        LSST,
        alert=alert,
        histories=tuple(histories),
        required=(),
        bands=SPELLED,
        flags=flags,
        cutouts=(),
    )


def flags_of(
    fields: Fields, chance: random.Random, taken: set[str], not_in: tuple[str, ...] = ()
) -> dict[str, str]:
    free = [
        p for p in fields.paths(FLAG) if p not in taken and not (not_in and p.startswith(not_in))
    ]
    chance.shuffle(free)
    return dict(zip(FLAGS, free, strict=False))


def point(items: Fields, chance: random.Random) -> dict[str, str]:
    columns: dict[str, str] = {}
    wanted = {"t_mjd_tai": REAL, "visit": WHOLE, "band": TEXT, "flux_njy": REAL, "sigma_njy": REAL}
    for column, allowed in wanted.items():
        free = [path for path in items.paths(allowed) if path not in columns.values()]
        named = free and chance.random() < 0.9
        columns[column] = chance.choice(free) if named else NOWHERE + column
    return columns


def at(value: Any, path: str) -> Any:
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def real(value: Any) -> float:
    return math.nan if value is None else float(enumerated(value))


def whole(value: Any) -> int:
    return NULL_INT64 if value is None else int(enumerated(value))


def enumerated(value: Any) -> Any:
    """The number of an enum's symbol: "S12" is 12."""
    return int(value[1:]) if isinstance(value, str) else value


def flags_at(value: Any, paths: dict[str, str]) -> int:
    return sum(1 << FLAGS.index(flag) for flag, path in paths.items() if at(value, path))


def band(value: Any) -> int:
    return BAND_CODES.get(value, -1)


def check(columns: Columns, number: int, value: Any, survey: Survey) -> None:
    """Packet `number` holds what fastavro's `value` holds."""
    got = columns.alert_f64[:, number].tolist()
    expected = [real(at(value, survey.alert[name])) for name in ALERT_FLOAT64]
    np.testing.assert_array_equal(got, expected)
    got = columns.alert_i64[:, number].tolist()
    assert got == [whole(at(value, survey.alert[name])) for name in ALERT_INT64]
    assert columns.alert_band[number] == band(at(value, survey.alert["band"]))
    points: list[tuple[int, dict[str, str], Any]] = []
    flags = [flags_at(value, survey.flags)]
    for part in in_packet_order(survey, value):
        items = at(value, part.path) or ()
        items = items.values() if isinstance(items, dict) else items
        points += [(part.kind, part.columns, item) for item in items]
        flags += [flags_at(item, part.flags) for item in items]
    low, high = columns.offsets[number : number + 2]
    assert columns.history_kind[low] == KIND_ALERT
    assert columns.history_flags[low:high].tolist() == flags
    low += 1  # the alert's own
    assert columns.history_kind[low:high].tolist() == [kind for kind, _, _ in points]
    told = {name: [at(item, paths[name]) for _, paths, item in points] for name in POINT}
    t_mjd_tai = np.array([real(t) for t in told["t_mjd_tai"]], np.float64)
    np.testing.assert_array_equal(columns.history_f64[0, low:high], t_mjd_tai)
    visits = zip(told["visit"], t_mjd_tai.view(np.int64).tolist(), strict=True)
    expected_visits = [bits if visit is None else whole(visit) for visit, bits in visits]
    assert columns.history_i64[0, low:high].tolist() == expected_visits
    assert columns.history_band[low:high].tolist() == [band(name) for name in told["band"]]
    for row, name in enumerate(("flux_njy", "sigma_njy")):
        with np.errstate(over="ignore"):
            expected_flux = np.array([real(value) for value in told[name]], np.float32)
        np.testing.assert_array_equal(columns.history_f32[row, low:high], expected_flux)


def in_packet_order(survey: Survey, value: Any) -> list[History]:
    """Histories as their fields follow each other in the packet."""
    order: list[str] = []

    def walk(part: Any, path: str) -> None:
        order.append(path)
        if isinstance(part, dict):
            for name, below in part.items():
                walk(below, f"{path}.{name}".lstrip("."))

    walk(value, "")
    return sorted(survey.histories, key=lambda h: order.index(h.path) if h.path in order else -1)


@given(st.integers(0, 2**40))
@settings(max_examples=400, deadline=None)
def test_a_plan_reads_what_fastavro_reads(seed: int) -> None:
    chance = random.Random(seed)
    schema = fastavro.parse_schema(SchemaMaker(chance).top(), _write_hint=False)
    survey = any_survey(schema, chance)
    plan = compile_plan(schema, survey)
    bodies = [encode(schema, chance) for _ in range(4)]
    columns = decode_columns(plan, packets_of(bodies))
    assert not columns.errors.any()
    for number, body in enumerate(bodies):
        check(columns, number, decode(schema, body), survey)


@given(st.integers(0, 2**40))
@settings(max_examples=150, deadline=None)
def test_spoilt_values_of_any_schema_harm_no_neighbour(seed: int) -> None:
    chance = random.Random(seed)
    schema = fastavro.parse_schema(SchemaMaker(chance).top(), _write_hint=False)
    survey = any_survey(schema, chance)
    plan = compile_plan(schema, survey)
    good = encode(schema, chance)
    bad = bytearray(good)
    for _ in range(chance.randint(1, 3)):
        bad[chance.randrange(len(bad) + 1) :][:1] = chance.randbytes(1)
        where = chance.randrange(len(bad) + 1)
        bad[where : where + 1] = chance.choice((b"\xff", b"\x80", b"\x01", chance.randbytes(2)))
    columns = decode_columns(plan, packets_of([good, bytes(bad), good]))
    assert columns.errors[0] == columns.errors[2] == 0
    for number in (0, 2):
        check(columns, number, decode(schema, good), survey)


@given(st.integers(0, 2**40))
@settings(max_examples=200, deadline=None)
def test_what_lay_before_a_packet_does_not_change_how_it_is_read(seed: int) -> None:
    """Alone a packet is walked; behind one that is nearly the same its layout is compared first."""
    chance = random.Random(seed)
    schema = fastavro.parse_schema(SchemaMaker(chance).top(), _write_hint=False)
    plan = compile_plan(schema, any_survey(schema, chance))
    good = encode(schema, chance)
    bodies = [good]
    for _ in range(12):
        near = bytearray(good)
        for _ in range(chance.randint(0, 2)):
            near[chance.randrange(len(near))] ^= 1 << chance.randrange(8)
        whole_or_cut = (len(near), len(near), chance.randrange(len(near)))
        bodies.append(bytes(near[: chance.choice(whole_or_cut)]))
    bodies.append(good)
    together = decode_columns(plan, packets_of(bodies))
    for number, body in enumerate(bodies):
        alone = decode_columns(plan, packets_of([body]))
        assert together.errors[number] == alone.errors[0]
        if alone.errors[0] == 0:
            same_packet(together, number, alone)


def same_packet(columns: Columns, number: int, alone: Columns) -> None:
    """Packet `number` of `columns` is the one packet of `alone`, to the bit."""
    rows = slice(*columns.offsets[number : number + 2])
    for name in ("alert_f64", "alert_i64"):
        got, expected = getattr(columns, name)[:, number], getattr(alone, name)[:, 0]
        assert got.tobytes() == expected.tobytes()
    assert columns.alert_band[number] == alone.alert_band[0]
    filled = {"history_f64": 1, "history_f32": 2, "history_i64": 1}  # the rest is not asked for
    for name, n in filled.items():
        got = getattr(columns, name)[:n, rows]
        assert got.tobytes() == getattr(alone, name)[:n, : alone.offsets[1]].tobytes()
    for name in ("history_band", "history_kind", "history_flags"):
        got = getattr(columns, name)[rows]
        assert got.tobytes() == getattr(alone, name)[: alone.offsets[1]].tobytes()


def schema_of(**fields: Any) -> Any:
    return {
        "type": "record",
        "name": "alert",
        "fields": [{"name": name, "type": kind} for name, kind in fields.items()],
    }


def survey_of(alert: dict[str, str] | None = None, **options: Any) -> Survey:
    nothing: dict[str, Any] = {
        "histories": (),
        "required": (),
        "bands": (),
        "flags": {},
        "cutouts": (),
    }
    return replace(LSST, **{"alert": alert or {}, **nothing, **options})


@given(st.one_of(st.binary(max_size=6), st.text(max_size=4).map(str.encode)))
@settings(max_examples=500, deadline=None)
@example(b"\xed\xa0\x80")  # a surrogate
@example(b"\xc0\x80")  # an overlong zero
@example(b"\xf4\x90\x80\x80")  # beyond Unicode
def test_text_is_what_python_can_decode(text: bytes) -> None:
    """Kept or stepped over, as a field, an item or a key."""
    try:
        text.decode()
        expected = None
    except UnicodeDecodeError:
        expected = RejectReason.BAD_TEXT
    schema = schema_of(
        a="string", b=["null", "string"], c={"type": "map", "values": ["string", "int"]}
    )
    fine = sized(b"x")
    in_each = (
        sized(text) + varint(0) + varint(0),
        fine + varint(1) + sized(text) + varint(0),
        fine + varint(0) + varint(1) + sized(text) + varint(1) + varint(5) + varint(0),
        fine + varint(0) + varint(1) + fine + varint(0) + sized(text) + varint(0),
    )
    for kept in ({}, {"band": "a"}):
        plan = compile_plan(schema, survey_of(kept))
        assert reasons(decode_columns(plan, packets_of(list(in_each)))) == [expected] * 4


@pytest.mark.parametrize("number", [-1, 0, 2, 3, 1 << 40])
def test_a_symbol_is_one_of_the_enums(number: int) -> None:
    kind = {"type": "enum", "name": "e", "symbols": ["A", "B", "C"]}
    expected = None if 0 <= number < 3 else RejectReason.BAD_SYMBOL
    for optional, body in ((kind, b""), (["null", kind], varint(1))):
        for kept in ({}, {"object_id": "x"}):
            plan = compile_plan(schema_of(x=optional), survey_of(kept))
            columns = decode_columns(plan, packets_of([body + varint(number)]))
            assert reasons(columns) == [expected]


def reasons(columns: Columns) -> list[RejectReason | None]:
    return [ERRORS[code - 1] if code else None for code in columns.errors.tolist()]


def test_a_recursive_schema_is_refused() -> None:
    node = schema_of(next=["null", "alert"])
    listed = schema_of(below={"type": "array", "items": "alert"})
    with pytest.raises(ConfigurationError, match="contains itself at next"):
        compile_plan(node, survey_of())
    with pytest.raises(ConfigurationError, match="recursive schemas are refused"):
        compile_plan(listed, survey_of())


def test_a_schema_that_doubles_thirty_times_is_refused_at_once() -> None:
    inner: Any = "null"
    for level in range(30):
        name = f"level{level}"
        below = [{"name": "a", "type": inner}, {"name": "b", "type": f"level{level - 1}"}]
        inner = {"type": "record", "name": name, "fields": below[: 2 if level else 1]}
    for schema in (schema_of(x=inner), schema_of(x={"type": "array", "items": inner})):
        with pytest.raises(ConfigurationError, match=f"more than {MAX_VALUES} values"):
            compile_plan(schema, survey_of())


def test_arrays_deeper_than_the_stack_are_refused() -> None:
    kind: Any = "int"
    for depth in range(1, MAX_DEPTH + 2):
        kind = {"type": "array", "items": kind}
        schema = schema_of(deep=kind)
        if depth <= MAX_DEPTH:
            body = b"\x02" * depth + b"\x0a" + b"\0" * depth
            assert not decode_columns(compile_plan(schema, survey_of()), packets_of([body])).errors[
                0
            ]
        else:
            with pytest.raises(ConfigurationError, match="nested deeper"):
                compile_plan(schema, survey_of())


@pytest.mark.parametrize("path", ["a.b", "c"])
def test_a_required_field_must_be_there(path: str) -> None:
    schema = schema_of(a=schema_of(x="int") | {"name": "inner"})
    with pytest.raises(ConfigurationError, match=rf"schema alert lacks .*{path}"):
        compile_plan(schema, survey_of({"dia_source_id": path}, required=(path,)))
    plan = compile_plan(schema, survey_of({"dia_source_id": path}))
    assert plan.missing == (path,)


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        ("dia_source_id", "double"),
        ("dia_source_id", "string"),
        ("dia_source_id", ["null", "float"]),
        ("dia_source_id", "bytes"),
        ("dia_source_id", {"type": "array", "items": "long"}),
        ("ra_deg", "string"),
        ("ra_deg", {"type": "fixed", "name": "f", "size": 8}),
        ("ra_deg", {"type": "record", "name": "r", "fields": []}),
        ("ra_deg", ["null", "double", "string"]),
        ("band", "int"),
        ("band", {"type": "enum", "name": "e", "symbols": ["u", "g"]}),
    ],
)
def test_a_type_that_the_column_cannot_take_is_refused(column: str, kind: Any) -> None:
    with pytest.raises(
        ConfigurationError, match=r"x .*(cannot take|no column can take|is a record|is an array)"
    ):
        compile_plan(schema_of(x=kind), survey_of({column: "x"}))


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        (schema_of(x={"type": "fixed", "name": "f", "size": -1}), "impossible size -1"),
        (schema_of(x={"type": "fixed", "name": "f", "size": "4"}), "impossible size '4'"),
        (schema_of(x="nonesuch"), "unknown type 'nonesuch'"),
        (schema_of(x={"type": "nonesuch"}), "is not Avro"),
        (
            schema_of(h={"type": "record", "name": "r", "fields": []}),
            "h is a record where an array",
        ),
        (schema_of(h="int"), "h is a single value where a record"),
        ("string", "must be a record"),
        (["null", schema_of(x="int")], "must be a record"),
        ({"type": "array", "items": "int"}, "must be a record"),
        (schema_of(x=[]), "x is a union without branches"),
        (schema_of(x={"type": "array", "items": []}), "no Avro schema"),
        (schema_of(x={"type": "enum", "name": "e", "symbols": []}), "an enum without symbols"),
        (schema_of(x={"type": "enum", "name": "e", "symbols": 5}), "an enum without symbols"),
        (schema_of(x={"type": "enum", "symbols": ["A"]}), "no Avro schema"),
        (schema_of(x=5), "no Avro schema"),
        (schema_of(x={"type": None}), "is not Avro"),
        ({"type": "record", "name": "a", "fields": 5}, "no Avro schema"),
        ({"type": "record", "fields": []}, "no Avro schema"),
        ({"type": "record", "name": "a", "fields": [{"name": [], "type": "int"}]}, "has the name"),
        ({"type": "record", "name": "a", "fields": [{"name": 5, "type": "int"}]}, "has the name 5"),
        (schema_of(x={"type": "fixed", "name": "f", "size": 1e308}), "impossible size"),
    ],
)
def test_what_is_no_alert_schema_is_refused(schema: Any, said: str) -> None:
    survey = survey_of(histories=(History("h", KIND_FORCED, POINT),))
    with pytest.raises(ConfigurationError, match=said):
        compile_plan(schema, survey)


def test_a_field_whose_type_is_null_is_missing() -> None:
    plan = compile_plan(schema_of(x="null", y="long"), survey_of({"dia_source_id": "x"}))
    assert plan.missing == ("x",)
    assert decode_columns(plan, packets_of([varint(5)])).alert_i64[0, 0] == NULL_INT64
    with pytest.raises(ConfigurationError, match=r"lacks the required .*x"):
        compile_plan(schema_of(x="null"), survey_of({"dia_source_id": "x"}, required=("x",)))


def test_an_array_is_no_record() -> None:
    schema = schema_of(a={"type": "array", "items": schema_of(x="int") | {"name": "inner"}})
    with pytest.raises(ConfigurationError, match="a is an array where a record is wanted"):
        compile_plan(schema, survey_of({"dia_source_id": "a.x"}))


@pytest.mark.parametrize("kind", ["record", "union", "wrapped", "map"])
def test_a_schema_deeper_than_pythons_stack_is_refused(kind: str) -> None:
    deep: Any = "int"
    for level in range(MAX_NESTED + 1):
        if kind == "record":
            deep = schema_of(x=deep) | {"name": f"r{level}"}
        elif kind == "map":
            deep = {"type": "map", "values": deep}
        else:
            deep = ["null", deep] if kind == "union" else {"type": deep}
    deeper: Any = "int"
    for level in range(2_000):
        deeper = {"type": "record", "name": f"d{level}", "fields": [{"name": "x", "type": deeper}]}
    with pytest.raises(ConfigurationError, match=r"nested deeper than|no Avro schema"):
        compile_plan(schema_of(x={"type": "array", "items": deeper}), survey_of())
    for part in (deep, {"type": "array", "items": deep}):
        if kind == "wrapped":  # unwrapped one by one
            compile_plan(schema_of(x=part), survey_of())
            continue
        with pytest.raises(ConfigurationError, match="nested deeper than"):
            compile_plan(schema_of(x=part), survey_of())


def test_a_schema_of_too_many_parts_is_refused() -> None:
    """Each costs memory in every call: 40,000 of them were 655 MB."""
    for n in (MAX_SEGMENTS, MAX_SEGMENTS + 1):
        kinds = {f"f{k}": {"type": "array", "items": "int"} for k in range(n)}
        if n == MAX_SEGMENTS:
            assert compile_plan(schema_of(**kinds), survey_of()).n_segments == n
        else:
            with pytest.raises(ConfigurationError, match=f"more than {MAX_SEGMENTS} parts"):
                compile_plan(schema_of(**kinds), survey_of())


def test_a_type_that_is_called_as_a_primitive_does_not_hide_it() -> None:
    """As fastavro has it."""
    schema = schema_of(a={"type": "fixed", "name": "long", "size": 3}, x="long")
    plan = compile_plan(schema, survey_of({"object_id": "x"}))
    columns = decode_columns(plan, packets_of([b"abc" + varint(7)]))
    assert columns.alert_i64[ALERT_INT64.index("object_id"), 0] == 7


@pytest.mark.parametrize("kind", ["int", "string", "double", ["null", "long"]])
def test_a_flag_is_a_boolean(kind: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"x has type .* which its column cannot take"):
        compile_plan(schema_of(x=kind), survey_of(flags={"edge": "x"}))


def test_the_alerts_flags_are_its_own_wherever_they_lie() -> None:
    item = schema_of(bad="boolean") | {"name": "item"}
    own = schema_of(edge="boolean") | {"name": "own"}
    schema = schema_of(h={"type": "array", "items": item}, own=own)
    history = History("h", KIND_SOURCE, POINT, flags={"bad": "bad"})
    survey = survey_of(histories=(history,), flags={"edge": "own.edge"})
    plan = compile_plan(schema, survey)
    packets = [varint(3) + bytes([0, 1, 0]) + varint(0) + bytes([edge]) for edge in (1, 0)]
    columns = decode_columns(plan, packets_of(packets))
    assert columns.history_flags[: columns.offsets[-1]].tolist() == [8, 0, 32, 0, 0, 0, 32, 0]


def test_histories_that_could_not_be_told_apart_are_refused() -> None:
    for kinds in ((KIND_FORCED, KIND_FORCED), (KIND_SOURCE, KIND_ALERT), (KIND_SOURCE, -1)):
        histories = tuple(
            History(name, kind, POINT) for name, kind in zip("ab", kinds, strict=True)
        )
        with pytest.raises(ConfigurationError, match="a kind of its own"):
            survey_of(histories=histories)
    history = History("h", KIND_SOURCE, POINT)
    with pytest.raises(ConfigurationError, match="holds a column"):
        survey_of({"ra_deg": "h.q"}, histories=(history,))
    twice = (history, replace(history, kind=KIND_FORCED))
    for doubled in ({"histories": twice}, {"alert": {"ra_deg": "x", "dec_deg": "x"}}):
        with pytest.raises(ConfigurationError, match="two columns have one path"):
            survey_of(**doubled)
    with pytest.raises(ConfigurationError, match="lies within another"):
        survey_of(histories=(History("a", KIND_FORCED, POINT), History("a.b", KIND_SOURCE, POINT)))


def test_rows_end_where_their_arrays_do() -> None:
    """A type that is defined once more within an item is shorter than the plan took it for."""
    four = {"type": "fixed", "name": "F", "size": 4}
    none = {"type": "fixed", "name": "F", "size": 0}
    item = schema_of(a=none, x="F") | {"name": "item"}
    tail = {"type": "fixed", "name": "tail", "size": 200}
    schema = schema_of(first=four, h={"type": "array", "items": item}, tail=tail)
    survey = survey_of(histories=(History("h", KIND_SOURCE, POINT),))
    plan = compile_plan(schema, survey)
    fine, bomb = (bytes(4) + varint(20) * n + varint(0) + bytes(200) for n in (1, 80))
    columns = decode_columns(plan, packets_of([fine, bomb, bomb, fine]))
    bad = RejectReason.TOO_MANY_ITEMS
    assert reasons(columns) == [None, bad, bad, None]
    assert columns.offsets.tolist() == [0, 21, 21, 21, 42]


def test_a_history_names_every_column_of_a_point() -> None:
    """A column that nothing fills would hold whatever the memory held before."""
    with pytest.raises(ConfigurationError, match="prv must name t_mjd_tai, "):
        History("prv", KIND_FORCED, {"t_mjd_tai": "t"})


def test_equal_steps_are_fused() -> None:
    schema = schema_of(
        **{f"f{n}": "double" for n in range(50)}, **{f"n{n}": ["null", "int"] for n in range(50)}
    )
    plan = compile_plan(schema, survey_of())
    assert plan.steps.tolist() == [
        [Op.SEGMENT, 2, 0, 0, 0],
        [Op.SKIP, 400, Shape.FIXED, 1, -1],
        [Op.SKIP, 50, Shape.VARINT, 0, 0],
        [Op.END, 0, 0, 0, 0],
    ]


def test_the_plan_of_lsst_reads_what_the_survey_wants(v10: Any) -> None:
    plan = compile_plan(v10, LSST)
    assert set(plan.stored) == set(LSST.paths())
    assert plan.missing == ()
    assert not set(plan.stored) & set(plan.skipped)
    assert len(plan.steps) < 200
