"""The documents say what the code does."""

from __future__ import annotations

import ast
import random
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastavro
import pytest

from active_learning.strategies import STRATEGIES
from lightcurves import reasons
from lightcurves.decode import ALERT_SCHEMA
from lightcurves.features import page as features
from lightcurves.features.registry import ALL_FAMILIES
from lightcurves.schemas import package_schemas
from lightcurves.surveys import SURVEYS
from models.kinds import kinds_of
from stream import routes
from tests.lightcurves.avro import decode, encode

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
GUIDE = DOCS / "extending"
PAGES = sorted(GUIDE.glob("*.md"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PRODUCT = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
DEVELOPMENT = ("tests", "benchmarks")


def test_features_page_is_made_from_the_declarations() -> None:
    assert (DOCS / "features.md").read_text() == features.page() + "\n"


def test_reasons_page_is_made_from_the_enumeration() -> None:
    assert (DOCS / "reasons.md").read_text() == reasons.page() + "\n"
    codes = {*reasons.RejectReason, *reasons.NotEvaluated}
    assert codes == set(reasons.DESCRIPTIONS)


def test_the_columns_of_alerts_are_documented_in_their_order() -> None:
    text = (DOCS / "alerts.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\w+)", text, re.MULTILINE)
    assert [name for name, _ in rows] == ALERT_SCHEMA.names
    for name, kind in rows:
        assert (
            str(ALERT_SCHEMA.field(name).type)
            .replace("double", "float64")
            .startswith(kind.replace("float32", "float"))
        )
    version = ALERT_SCHEMA.metadata[b"noctule.alerts"].decode()
    assert f"Version {version} (`noctule.alerts`" in text


def test_the_surveys_are_documented_as_they_are_declared() -> None:
    text = (DOCS / "alerts.md").read_text()
    for survey in SURVEYS.values():
        site = survey.site
        turns = f"{int(24 * site.night_turns + 1e-9)}:{round(1440 * site.night_turns) % 60:02}"
        row = rf"^\| {survey.name} \| .* \| {survey.framing} \| {site.name} \| {turns} \|$"
        assert re.search(row, text, re.MULTILINE), row
    bands = re.findall(r"^\| (\w+) \| (\w+) \| (\d+) nm \| (\w) \|$", text, re.MULTILINE)
    assert bands == [
        (band.name, survey.name, f"{band.wavelength_nm:.0f}", band.counts_as)
        for survey in SURVEYS.values()
        for band in survey.bands
    ]


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python blocks of the page on alerts, on a made-up file."""
    schema: Any = package_schemas().schema(1000)
    records = [decode(schema, encode(schema, random.Random(seed))) for seed in range(5)]
    with (tmp_path / "alerts.avro").open("wb") as file:
        fastavro.writer(file, schema, records)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "alerts.md").read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(block, {})  # noqa: S102 - our own page


def test_every_local_link_leads_somewhere() -> None:
    pages = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *DOCS.rglob("*.md")]
    broken = [
        (page.name, target)
        for page in pages
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert broken == []


# -- the guide to extending ------------------------------------------------------------------------

QUOTE = re.compile(r"^\[[^\n]+\]\((\S+)\):\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
"""A link to a file, and what is quoted of it."""
LEFT_OUT = re.compile(r"^ *(?:# )?\[\.\.\.\]\n", re.MULTILINE)
LISTED = {
    "feature": [family.name for family in ALL_FAMILIES],
    "classifier": [
        name
        for role in ("classifier", "combiner", "calibration", "sets")
        for name in kinds_of(role)
    ],
    "detector": [name for role in ("detector", "novelty") for name in kinds_of(role)],
    "strategy": list(STRATEGIES),
    "route": [name for name, _ in routes.KINDS],
    "survey": list(SURVEYS),
}


def is_quoted(block: str, source: str) -> bool:
    """Whether whole lines of the source, in their order, are what the block has between its gaps."""
    at = 0
    for piece in LEFT_OUT.split(block):
        at = f"\n{source}".find(f"\n{piece}", at)
        if at < 0:
            return False
        at += len(piece)
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_guide_quotes_what_is_in_the_files(page: Path) -> None:
    text = page.read_text()
    quotes = QUOTE.findall(text)
    assert 2 * len(quotes) == len(re.findall("^```", text, re.MULTILINE)), "a block names no file"
    wrong = [
        (file, block)
        for file, block in quotes
        if not is_quoted(block, (page.parent / file).read_text())
    ]
    assert wrong == []


def test_a_quotation_is_of_whole_lines_in_their_order() -> None:
    source = "one\n  two\nthree\n"
    for block in (source, "one\n", "  two\nthree\n", "one\n[...]\nthree\n", "# [...]\n  two\n"):
        assert is_quoted(block, source), block
    for block in ("on\n", "two\n", "one\nthree\n", "three\n# [...]\none\n", "one\n[...]\none\n"):
        assert not is_quoted(block, source), block


@pytest.mark.parametrize("page", LISTED)
def test_all_that_there_is_is_on_its_page(page: str) -> None:
    text = (GUIDE / f"{page}.md").read_text()
    assert re.findall(r"^- `(\w+)`: ", text, re.MULTILINE) == list(dict.fromkeys(LISTED[page]))


def test_every_route_has_its_topic_on_the_page_of_messages() -> None:
    text = (DOCS / "messages.md").read_text()
    assert [name for name in LISTED["route"] if f"| `kafka.{name}_topic`" not in text] == []


def test_every_page_of_the_guide_has_its_parts_and_is_in_the_index() -> None:
    index = (GUIDE / "README.md").read_text()
    others = [page for page in PAGES if page.name != "README.md"]
    assert len(others) >= len(LISTED)
    for page in others:
        assert f"]({page.name})" in index
        parts = re.findall(r"^## (.+)$", page.read_text(), re.MULTILINE)
        wanted = ["Steps", "What the tests check", "The example", "Files that a change touches"]
        assert parts[-4:] == wanted, page.name


def test_every_benchmark_is_named_in_the_docs() -> None:
    text = "".join(page.read_text() for page in [ROOT / "README.md", *DOCS.rglob("*.md")])
    names = {path.stem for path in (ROOT / "benchmarks").glob("*.py")} - {"__init__", "setting"}
    assert [name for name in sorted(names) if f"benchmarks.{name}" not in text] == []


@pytest.mark.parametrize(
    ("heading", "requirements", "folders"),
    [
        ("What noctule needs to run", PROJECT["project"]["dependencies"], PRODUCT),
        ("What development needs", PROJECT["dependency-groups"]["dev"], DEVELOPMENT),
    ],
)
def test_every_dependency_has_its_line_and_its_import(
    heading: str, requirements: list[str], folders: list[str]
) -> None:
    """A dash stands for a package that no code imports, neither the product nor the tests."""
    lines = dependency_lines(heading)
    names = [re.split(r"[^\w-]", requirement)[0] for requirement in requirements]
    assert [name for name, _, _ in lines] == sorted(names)
    used = imported(folders)
    everywhere = imported([*PRODUCT, *DEVELOPMENT])
    for name, module, _ in lines:
        if module == "-":
            assert name.replace("-", "_") not in everywhere, name
        else:
            assert module.strip("`") in used, name


def dependency_lines(heading: str) -> list[tuple[str, str, str]]:
    """Package, module or dash, and reason, of a section of decision 1."""
    page = (DOCS / "decisions" / "0001-dependencies.md").read_text()
    section = page.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| ([\w-]+) \| (`\w+`|-) \| (.+) \|$", section, re.MULTILINE)


def imported(folders: list[str]) -> set[str]:
    """Top-level modules that the code in these folders imports."""
    return {
        name.partition(".")[0]
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        for name in import_names(ast.parse(path.read_text()))
    }


def import_names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module


def test_no_registry_host_is_named() -> None:
    domains = ("pypi.org", "maven.org", "pythonhosted", "debian.org", "npmjs")
    listed = subprocess.run(
        ["/usr/bin/env", "git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    here = Path(__file__).relative_to(ROOT)
    named = []
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.is_file() and path.suffix != ".png" and Path(name) != here:
            text = path.read_text(errors="replace")
            named += [(name, domain) for domain in domains if domain in text]
    assert named == []
