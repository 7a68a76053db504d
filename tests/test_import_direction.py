"""Imports point one way; the folders of the repository are the rooms (docs in ARCHITECTURE.md)."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]

SCIENCE = frozenset({"lightcurves", "models", "active_learning", "store"})
ROOMS = frozenset(
    {
        *SCIENCE,
        *("watch", "stream", "portal", "simulator", "deploy", "noctule", "benchmarks", "tests"),
    }
)

MAY_IMPORT = {
    "lightcurves": frozenset[str](),
    "models": frozenset({"lightcurves"}),
    "store": frozenset({"lightcurves", "models"}),
    "watch": frozenset({"lightcurves"}),
    "active_learning": SCIENCE | {"watch"},
    "simulator": frozenset({"lightcurves"}),
    "stream": SCIENCE | {"watch"},
    "portal": SCIENCE | {"watch"},
    "deploy": ROOMS - {"noctule", "benchmarks", "tests"},
    "noctule": ROOMS - {"benchmarks", "tests"},
}
"""Room to the other rooms that it may know."""

SOCKETS = frozenset(
    {
        "alembic",
        "confluent_kafka",
        "deltalake",
        "fastapi",
        "psycopg",
        "pyspark",
        "sqlalchemy",
        "starlette",
        "uvicorn",
    }
)
"""What Kafka, Spark, SQL, Delta and HTTP plug into; the science runs on a laptop without them."""

PURE = ("lightcurves", "models")
MAY_READ_THE_ENVIRONMENT = ("deploy", "tests", "benchmarks")
"""Entry points; the last two look up NOCTULE_DATA, the folder of real packets, and no setting."""


Graph = Mapping[str, Iterable[str]]


def modules(room: str) -> Iterator[Path]:
    yield from sorted((REPOSITORY / room).rglob("*.py"))


def imported(tree: ast.AST) -> Iterator[str]:
    """Full names of all that is imported, wherever it stands in the module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def packages(tree: ast.AST) -> set[str]:
    return {name.partition(".")[0] for name in imported(tree)}


def reads_environment(tree: ast.AST) -> bool:
    """Whether a module looks into its environment; setting a variable for a child is no look."""
    reading = {"os.environ", "os.environb", "os.getenv", "os.getenvb"}
    if reading & set(imported(tree)):
        return True
    written = {id(part) for node in ast.walk(tree) for part in written_in(node)}
    return any(
        isinstance(node, ast.Attribute) and ast.unparse(node) in reading and id(node) not in written
        for node in ast.walk(tree)
    )


def written_in(node: ast.AST) -> Iterator[ast.AST]:
    """The ``os.environ`` of ``os.environ[...] = ...`` and of a bare ``os.environ.setdefault()``."""
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
        yield node.value
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        called = node.value.func
        if isinstance(called, ast.Attribute) and called.attr == "setdefault":
            yield called.value


def has_logic(tree: ast.Module) -> bool:
    """Whether a module has more than a docstring, imports and ``__all__``."""
    return not all(
        isinstance(node, ast.Import | ast.ImportFrom) or is_docstring(node) or is_all(node)
        for node in tree.body
    )


def is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def is_all(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


def import_graph() -> dict[str, set[str]]:
    """Each module of all rooms to those that it imports: at once, in a function, or for types alone."""
    paths = {name_of(path): path for room in sorted(ROOMS) for path in modules(room)}

    def module_of(name: str) -> str:
        return name if name in paths else name.rpartition(".")[0]

    return {
        module: {module_of(name) for name in imported(parsed(path))} & paths.keys()
        for module, path in paths.items()
    }


def circle(graph: Graph) -> str:
    """Return a circle of imports in words; nothing where there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return " imports ".join(reversed(error.args[1]))
    return ""


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_knows_only_those_below_it(room: str) -> None:
    allowed = MAY_IMPORT[room] | {room}
    wrong = {
        str(path.relative_to(REPOSITORY)): sorted(others)
        for path in modules(room)
        if (others := (packages(parsed(path)) & ROOMS) - allowed)
    }
    assert wrong == {}


def test_no_imports_go_in_a_circle() -> None:
    """Imports for types alone count: what needs another's types lies above it."""
    assert circle(import_graph()) == ""


def test_imports_are_absolute() -> None:
    """What the graph of imports is made of; a relative one would be missing in it."""
    relative = [
        path
        for room in sorted(ROOMS)
        for path in modules(room)
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert relative == []


def test_the_graph_has_imports_of_modules_of_names_and_for_types() -> None:
    graph = import_graph()
    assert "lightcurves.errors" in graph["lightcurves.decode"]  # a name of a module
    assert "watch.logs" in graph["deploy.cli"]  # a module of a package
    assert "deploy.demo" in graph["deploy.commands.demo"]  # in a function
    assert "stream.health" in graph["stream.metrics"]  # for types alone
    assert len(graph) > 250


@pytest.mark.parametrize(
    ("graph", "said"),
    [
        ({"a": ["b"], "b": ["c"], "c": []}, ""),
        ({"a": ["b"], "b": ["a"]}, "a imports b imports a"),
        ({"a": ["a"]}, "a imports a"),
        ({"a": ["d"], "b": ["c"], "c": ["b"], "d": []}, "b imports c imports b"),
    ],
)
def test_a_circle_is_found_and_said(graph: Graph, said: str) -> None:
    assert circle(graph) == said


@pytest.mark.parametrize("room", PURE)
def test_the_science_knows_no_sockets(room: str) -> None:
    wrong = {
        str(path.relative_to(REPOSITORY)): sorted(sockets)
        for path in modules(room)
        if (sockets := packages(parsed(path)) & SOCKETS)
    }
    assert wrong == {}


@pytest.mark.parametrize("room", sorted(ROOMS.difference(MAY_READ_THE_ENVIRONMENT)))
def test_settings_come_as_values_not_from_the_environment(room: str) -> None:
    wrong = [path for path in modules(room) if reads_environment(parsed(path))]
    assert wrong == []


def test_the_front_door_has_no_logic() -> None:
    assert [path for path in modules("noctule") if has_logic(parsed(path))] == []


def test_every_folder_with_python_is_a_room() -> None:
    folders = {path.parent.name for path in REPOSITORY.glob("*/*.py")}
    assert folders <= ROOMS


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import deploy.kafka", {"deploy"}),
        ("from deploy import kafka", {"deploy"}),
        ("from deploy.kafka import x as y", {"deploy"}),
        ("def f():\n    import deploy", {"deploy"}),
        ("if TYPE_CHECKING:\n    from deploy.a import b", {"deploy"}),
        ("from . import deploy", set()),
        ("deploy = 1", set()),
    ],
)
def test_imports_are_found_wherever_they_stand(source: str, found: set[str]) -> None:
    assert packages(ast.parse(source)) == found


@pytest.mark.parametrize(
    ("source", "reads"),
    [
        ("import os\nos.environ['A']", True),
        ("import os\nos.getenv('A')", True),
        ("from os import environ", True),
        ("from os import getenv as g", True),
        ("import os\nx = os.environ.setdefault('A', 'b')", True),
        ("import os\nos.environ.setdefault('A', 'b')", False),
        ("import os\nos.environ['A'] = 'b'", False),
        ("import os\nos.getpid()", False),
    ],
)
def test_reading_the_environment_is_found(source: str, reads: bool) -> None:  # noqa: FBT001
    assert reads_environment(ast.parse(source)) is reads


@pytest.mark.parametrize(
    ("source", "logic"),
    [
        ('"""Names."""\nfrom a import b\nimport c\n__all__ = ["b", "c"]', False),
        ("def f(): ...", True),
        ("x = 1", True),
        ("if True:\n    import a", True),
        ("for a in b: ...", True),
        ("f()", True),
    ],
)
def test_logic_is_found(source: str, logic: bool) -> None:  # noqa: FBT001
    assert has_logic(ast.parse(source)) is logic
