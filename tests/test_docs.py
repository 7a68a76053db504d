"""The documents say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from lightcurves import reasons
from lightcurves.features import page as features

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def test_features_page_is_made_from_the_declarations() -> None:
    assert (DOCS / "features.md").read_text() == features.page() + "\n"


def test_reasons_page_is_made_from_the_enumeration() -> None:
    assert (DOCS / "reasons.md").read_text() == reasons.page() + "\n"
    codes = {*reasons.RejectReason, *reasons.NotEvaluated}
    assert codes == set(reasons.DESCRIPTIONS)


def test_every_local_link_leads_somewhere() -> None:
    pages = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *DOCS.rglob("*.md")]
    broken = [
        (page.name, target)
        for page in pages
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert broken == []


def test_every_benchmark_is_named_in_the_docs() -> None:
    text = "".join(page.read_text() for page in [ROOT / "README.md", *DOCS.rglob("*.md")])
    commands = [path.stem for path in (ROOT / "benchmarks").glob("*.py")]
    missing = [name for name in commands if name not in {"__init__", "setting"} and f"benchmarks.{name}" not in text]
    assert missing == []


def test_no_registry_host_is_named() -> None:
    hosts = re.compile("|".join(("pypi" + r"\.org", "maven" + r"\.org", "pythonhosted", "debian" + r"\.org")))
    files = [path for path in ROOT.rglob("*") if path.suffix in {".md", ".py", ".toml", ".txt", ".yml", ".sh", ".xml"}]
    named = [
        str(path)
        for path in files
        if not {".venv", ".git", ".mypy_cache"} & set(path.parts) and hosts.search(path.read_text())
    ]
    assert named == []
