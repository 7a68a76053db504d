"""The documents say what the code does."""

from __future__ import annotations

import re
import subprocess
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
    names = {path.stem for path in (ROOT / "benchmarks").glob("*.py")} - {"__init__", "setting"}
    assert [name for name in sorted(names) if f"benchmarks.{name}" not in text] == []


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


def test_every_metric_is_documented_and_the_dashboard_asks_for_no_other() -> None:
    code = (ROOT / "portal" / "metrics.py").read_text()
    made = set(re.findall(r'"(noctule_\w+)"', code))

    def plain(name: str) -> str:
        return name.removesuffix("_total")  # Prometheus adds it to counters

    documented = {
        plain(name) for name in re.findall(r"`(noctule_\w+)`", (DOCS / "api.md").read_text())
    }
    dashboards = (ROOT / "deploy" / "grafana").rglob("*.json")
    asked = {plain(n) for d in dashboards for n in re.findall(r"noctule_\w+", d.read_text())}
    assert made == documented
    assert asked <= made
