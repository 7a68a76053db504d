"""The pages in a real browser: headless Chromium, as Debian packages it."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import sqlalchemy as sa
from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright

from portal.serve import serving
from store import tables
from store.request_queries import label_history
from tests.portal import night
from tests.portal.conftest import TOKEN, make_app

pytestmark = pytest.mark.browser

ARGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESKTOP: ViewportSize = {"width": 1440, "height": 1000}
PHONE: ViewportSize = {"width": 390, "height": 844}
OpenPage = Callable[..., Page]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=ARGS)
        yield running
        running.close()


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots go: NOCTULE_SCREENSHOTS, or a folder that pytest throws away."""
    folder = os.environ.get("NOCTULE_SCREENSHOTS")
    path = Path(folder) if folder else tmp_path_factory.mktemp("screenshots")
    path.mkdir(parents=True, exist_ok=True)
    return path


@pytest.fixture
def url(sqlite: sa.Engine) -> Iterator[str]:
    night.fill(sqlite)
    with serving(make_app(sqlite)) as address:
        yield address


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """Opens pages that must stay without errors and without requests to another host."""
    problems: list[str] = []
    contexts = []

    def watch(page: Page, host: str) -> None:
        page.on("pageerror", lambda error: problems.append(f"exception: {error}"))
        page.on("console", lambda line: problems.append(line.text) if _bad(line.type) else None)
        page.on("request", lambda r: problems.append(r.url) if _elsewhere(r.url, host) else None)

    def opened(url: str, *, scheme: str = "light", size: ViewportSize = DESKTOP) -> Page:
        context = browser.new_context(viewport=size, color_scheme=scheme)  # type: ignore[arg-type]
        contexts.append(context)
        page = context.new_page()
        watch(page, urlsplit(url).netloc)
        page.goto(url)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert problems == []


def _bad(kind: str) -> bool:
    return kind in {"error", "warning"}


def _elsewhere(url: str, host: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme not in {"data", "blob"} and parts.netloc != host


def wait_until(page: Page, expression: str, timeout_s: float = 15.0) -> None:
    """Wait until an expression is true; playwright's own way evaluates text, which the CSP refuses."""
    end = time.monotonic() + timeout_s
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"never true: {expression}"
        page.wait_for_timeout(50)


def wait_for_figures(page: Page) -> None:
    wait_until(page, "globalThis.Bokeh?.documents.length > 0 && Bokeh.documents.at(-1).is_idle")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("name", "size"), [("desktop", DESKTOP), ("phone", PHONE)])
def test_pages_fit_and_are_photographed(
    url: str, open_page: OpenPage, screenshots: Path, scheme: str, name: str, size: ViewportSize
) -> None:
    for path in ("/", f"/objects/{night.FIRST_ID + 3 * 7_919}", "/queue", "/models"):
        page = open_page(url + path, scheme=scheme, size=size)
        if path.startswith("/objects"):
            wait_for_figures(page)
            page.set_viewport_size({**size, "height": 2600 if name == "phone" else 1500})
            page.wait_for_timeout(700)
        room = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert page.evaluate(room) <= 0, path
        words = path.strip("/").partition("/")[0] or "overview"
        page.screenshot(path=screenshots / f"{words}-{name}-{scheme}.png", full_page=True)
        page.close()


def test_both_figures_are_drawn_with_their_data(url: str, open_page: OpenPage) -> None:
    page = open_page(f"{url}/objects/{night.FIRST_ID}")
    wait_for_figures(page)
    drawn = page.evaluate(
        """() => Bokeh.documents.at(-1).roots()[0].children.map((figure) => [
            figure.name,
            figure.renderers.filter((each) => each.name === "point")
                .map((each) => each.data_source.get_length()).reduce((a, b) => a + b, 0),
            figure.inner_width > 300,
        ])"""
    )
    n_points = night.light_curve("lsst", night.FIRST_ID).num_rows
    assert drawn[0] == ["light_curve", n_points, True]
    assert drawn[1][0] == "probabilities"
    assert drawn[1][1] > 0
    assert page.locator("#figures canvas").count() >= 2


def test_figures_follow_the_colour_scheme(url: str, open_page: OpenPage) -> None:
    page = open_page(f"{url}/objects/{night.FIRST_ID}")
    wait_for_figures(page)
    paper = "Bokeh.documents.at(-1).roots()[0].children[0].background_fill_color"
    assert page.evaluate(paper) == "#fcfbf8"
    page.emulate_media(color_scheme="dark")
    wait_until(page, f"{paper} === '#10141b'")
    expect(page.locator("#figures > .drawing")).to_have_count(1)


def test_figures_are_drawn_again_when_an_alert_comes(
    url: str, sqlite: sa.Engine, open_page: OpenPage
) -> None:
    page = open_page(f"{url}/objects/{night.FIRST_ID}")
    wait_for_figures(page)
    add_alert(sqlite, 900_001, night.T0 + 1)
    wait_until(page, "Bokeh.documents.length > 1")
    page.locator("#figures").dispatch_event("pointerdown")
    add_alert(sqlite, 900_002, night.T0 + 2)
    expect(page.locator("#redraw")).to_be_visible(timeout=15_000)
    page.locator("#redraw").click()
    expect(page.locator("#redraw")).to_be_hidden(timeout=15_000)


def add_alert(engine: sa.Engine, number: int, t: float) -> None:
    row = night.alert(night.FIRST_ID, number, t, t, 111, 0.1, np.random.default_rng(0))
    with engine.begin() as connection:
        connection.execute(tables.classifications.insert().values(row))
        connection.execute(
            tables.objects.update()
            .where(tables.objects.c.object_id == night.FIRST_ID)
            .values(last_mjd_tai=t, last_dia_source_id=row["dia_source_id"])
        )


def test_overview_refreshes_itself_and_stays_where_it_is(
    url: str, sqlite: sa.Engine, open_page: OpenPage
) -> None:
    page = open_page(url, size={"width": 1440, "height": 500})
    page.evaluate(WATCH_SHIFTS)
    page.evaluate("window.scrollTo(0, 300)")
    expect(page.locator("#counters")).to_contain_text("9")
    with sqlite.begin() as connection:
        for at in range(4):
            night.add_label(connection, night.FIRST_ID + (12 + at) * 7_919)
    expect(page.locator("#counters dl > div").last).to_contain_text("13", timeout=10_000)
    assert page.evaluate("window.scrollY") == 300
    assert page.evaluate("globalThis.shifted") < 0.02


WATCH_SHIFTS = """() => {
    globalThis.shifted = 0;
    new PerformanceObserver((list) => {
        for (const entry of list.getEntries()) globalThis.shifted += entry.value;
    }).observe({type: "layout-shift", buffered: false});
}"""


def test_a_refresh_leaves_selected_text_alone(url: str, open_page: OpenPage) -> None:
    page = open_page(url)
    page.evaluate("getSelection().selectAllChildren(document.querySelector('#newest td'))")
    before = page.evaluate("getSelection().toString()")
    page.wait_for_timeout(2_600)
    assert before
    assert page.evaluate("getSelection().toString()") == before


def test_the_page_says_when_the_server_is_away_and_goes_on(
    sqlite: sa.Engine, browser: Browser
) -> None:
    with serving(make_app(sqlite)) as url:
        page = browser.new_page()
        page.goto(url)
    expect(page.locator("#away")).to_contain_text("does not answer", timeout=10_000)
    with serving(make_app(sqlite), port=int(url.rpartition(":")[2])):
        expect(page.locator("#away")).to_be_hidden(timeout=10_000)
    page.close()


def test_a_hidden_tab_asks_for_nothing(url: str, open_page: OpenPage) -> None:
    page = open_page(url)
    page.evaluate(
        """() => {
            Object.defineProperty(document, "hidden", {value: true});
            document.dispatchEvent(new Event("visibilitychange"));
        }"""
    )
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(3_000)
    # The browser fetches the page's icon when it likes.
    assert [address for address in asked if "/static/" not in address] == []


def test_a_label_is_reported_with_the_form(
    url: str, sqlite: sa.Engine, open_page: OpenPage
) -> None:
    page = open_page(f"{url}/queue")
    first = page.locator("a.report").first
    object_id = str(first.get_attribute("data-object"))
    first.click()
    expect(page.locator("#f-object")).to_have_value(object_id)
    page.locator("#f-class").select_option("132")
    page.locator("#f-reporter").fill("A. Observer <b>")
    page.locator("#f-redshift").fill("0.12")
    page.locator("#f-token").fill(TOKEN)
    page.get_by_role("button", name="Report label").click()
    expect(page.locator("#label-result")).to_contain_text(f"{object_id} is TDE")
    with sqlite.begin() as connection:
        label = label_history(connection, "lsst", int(object_id))[-1]
    assert (label["class_id"], label["redshift"]) == (132, 0.12)
    expect(page.locator("#answered")).to_contain_text("A. Observer <b>", timeout=10_000)
    page.reload()
    expect(page.locator("#f-token")).to_have_value(TOKEN)


def test_the_form_says_what_is_wrong(url: str, browser: Browser) -> None:
    page = browser.new_page()
    page.goto(f"{url}/queue?object_id={night.FIRST_ID}#report")
    report = page.get_by_role("button", name="Report label")
    report.click()
    expect(page.locator("#label-result")).to_have_text("Fill in the fields with a star.")
    page.locator("#f-class").select_option("111")
    page.locator("#f-reporter").fill("me")
    page.locator("#f-token").fill("wrong token")
    report.click()
    expect(page.locator("#label-result")).to_have_text("the token is wrong")
    page.locator("#f-token").fill(TOKEN)
    page.locator("#f-confidence").fill("7")
    report.click()
    expect(page.locator("#label-result")).to_contain_text("confidence: Input should be less")
    expect(page.locator("#f-confidence")).to_have_attribute("aria-invalid", "true")
    page.close()


def test_empty_pages_are_without_errors(sqlite: sa.Engine, open_page: OpenPage) -> None:
    with serving(make_app(sqlite, token=None)) as url:
        for path in ("/", "/queue", "/models"):
            page = open_page(url + path)
            expect(page.locator("h1")).to_have_count(1)
            page.close()


def test_an_object_without_a_light_curve_says_so(sqlite: sa.Engine, open_page: OpenPage) -> None:
    with sqlite.begin() as connection:
        object_id = night.add_unscored_object(connection)
        connection.execute(tables.classifications.delete())
    with serving(make_app(sqlite, light_curve=lambda *_: None)) as url:
        page = open_page(f"{url}/objects/{object_id}")
        expect(page.locator("#figures")).to_contain_text("Nothing to draw yet")
        page.close()
