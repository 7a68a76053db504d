"""A compiled plan in words: which fields of a schema are read, which are not, and which are missing."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from lightcurves.columns import Space
from lightcurves.plan import compile_plan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lightcurves.plan import Plan
    from lightcurves.surveys.declare import Survey

_TYPES: Final = {
    Space.ALERT_FLOAT64: "float64",
    Space.ALERT_INT64: "int64",
    Space.ALERT_BAND: "band",
    Space.HISTORY_FLOAT64: "float64",
    Space.HISTORY_FLOAT32: "float32",
    Space.HISTORY_INT64: "int64",
    Space.HISTORY_BAND: "band",
    Space.ALERT_FLAG: "bit",
    Space.HISTORY_FLAG: "bit",
}
_SAME: Final = {
    ("int", "band"),
    ("double", "float64"),
    ("float", "float32"),
    ("long", "int64"),
    ("string", "band"),
    ("boolean", "bit"),
}


def explain(schema: Any, survey: Survey) -> str:
    """Return a description, for people, of how `survey`'s mapping reads a writer's schema.

    Parameters
    ----------
    schema
        The writer's schema as JSON objects.
    survey
        The mapping.

    Returns
    -------
    str
        Lines: the fields that are read, with their columns ("promoted" where the column's type is
        not the packet's); those missing from the schema, whose columns are null; and how many fields
        are skipped, by the field of the packet that they belong to.

    Raises
    ------
    ConfigurationError
        The schema cannot be used; the message names what is missing.

    Examples
    --------
    >>> from lightcurves.surveys import LSST
    >>> from lightcurves.schemas import package_schemas
    >>> print(explain(package_schemas().schema(1000), LSST).splitlines()[0])
    lsst.v10_0.alert, read as lsst: 32 fields read, 0 missing, 358 stepped over
    """
    plan = compile_plan(schema, survey)
    return "\n".join(_lines(str(schema["name"]), plan, survey))


def _lines(name: str, plan: Plan, survey: Survey) -> Iterator[str]:
    columns = _columns(survey)
    yield (
        f"{name}, read as {survey.name}: {len(set(plan.stored))} fields read, {len(plan.missing)} "
        f"missing, {len(set(plan.skipped))} stepped over"
    )
    yield ""
    yield "read"
    width = max(map(len, plan.stored), default=0)
    for path, kind in zip(plan.stored, plan.stored_types, strict=True):
        column, wanted = columns[path]
        promoted = "" if (kind.removeprefix("null or "), wanted) in _SAME else ", promoted"
        yield f"  {path:{width}}  {kind:14}  -> {column} ({wanted}{promoted})"
    if plan.missing:
        yield ""
        yield "missing, null in every alert"
        for path in plan.missing:
            yield f"  {path:{width}}  {'':14}  -> {columns[path][0]}"
    yield ""
    yield "stepped over"
    skipped = dict.fromkeys(plan.skipped)  # a union has a path once for each of its branches
    for top, count in Counter(path.partition(".")[0] for path in skipped).items():
        partly = any(path.startswith(f"{top}.") for path in plan.stored)
        yield f"  {top}: {count} {'fields' if partly or count > 1 else 'field'}"


def _columns(survey: Survey) -> dict[str, tuple[str, str]]:
    """Return the column and its type by the path of its field."""
    tree = survey.tree()
    named = {path: column for column, path in survey.alert.items()}
    named |= {path: f"light_curve.flags, {flag}" for flag, path in survey.flags.items()}
    for part in survey.histories:
        points = part.columns | {f"flags, {flag}": name for flag, name in part.flags.items()}
        named |= {f"{part.path}.{name}": f"light_curve.{column}" for column, name in points.items()}
    return {path: (column, _TYPES[_target(tree, path).space]) for path, column in named.items()}


def _target(tree: dict[str, Any], path: str) -> Any:
    for part in path.split("."):
        tree = tree[part]
    return tree
