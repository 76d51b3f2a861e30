"""The page opens offline in a real browser, draws everything, and nothing hostile in it runs."""

import base64
import functools
import hashlib
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from markupsafe import escape

from repetita.errors import SpecError
from repetita.report.legend import palette
from repetita.report.page import page
from repetita.report.palette import THEMES
from tests.report import samples

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run", "--disable-dev-shm-usage",
)  # fmt: skip

browser_test = [
    pytest.mark.slow,
    pytest.mark.ci,
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason="needs chromium and chromedriver"),
]


def made() -> str:
    return page([samples.repetition(), samples.memorization()], title="Two stories", lead="Together.")


studies = functools.cache(made)


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory, downloads: Path) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)}
    )
    driver.execute_cdp_cmd("Network.enable", {})
    driver.execute_cdp_cmd(
        "Network.emulateNetworkConditions",
        {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0},
    )
    yield driver
    driver.quit()


def wait(condition: Callable[[], Any]) -> Any:
    for _ in range(300):
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("waited 15 s")


def opened(browser: Any, path: Path, *, width: int = 1280, theme: str = "light") -> None:
    features = [{"name": "prefers-color-scheme", "value": theme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(path.as_uri())
    wait(lambda: ready(browser) == theme)


def ready(browser: Any) -> Any:
    return browser.execute_script("return document.documentElement.dataset.ready")


def calm(browser: Any) -> None:
    """No console message at all, and no request but for the page's own parts."""
    assert browser.get_log("browser") == []
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            assert not message["params"]["request"]["url"].startswith(("http", "ws", "ftp"))


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "demo.html"
    path.write_text(studies(), encoding="utf-8")
    return path


class TestInABrowser:
    pytestmark = browser_test

    @pytest.mark.parametrize("theme", ["light", "dark"])
    @pytest.mark.parametrize("width", [1280, 390])
    def test_everything_is_drawn_and_nothing_scrolls_sideways(self, browser, demo, theme, width):
        opened(browser, demo, width=width, theme=theme)
        assert browser.execute_script("return document.querySelectorAll('.drawn').length") == 6
        for box in browser.find_elements("css selector", ".panel"):
            assert box.find_elements("css selector", "svg")
            assert 200 < box.size["width"] <= width
            assert box.size["height"] > 150
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        calm(browser)

    def test_a_legend_entry_hides_its_series(self, browser, demo):
        opened(browser, demo)
        count = "return document.querySelectorAll('#figure-hump .panel path[stroke=\"%s\"]').length"
        colour = palette(samples.hump(), "light")[1]
        assert browser.execute_script(count % colour) > 0
        entry = browser.find_elements("css selector", "#figure-hump .entry")[1]
        browser.execute_script("arguments[0].click()", entry)
        wait(lambda: browser.execute_script(count % colour) == 0)
        assert entry.get_attribute("aria-pressed") == "false"
        browser.execute_script("arguments[0].click()", entry)
        wait(lambda: browser.execute_script(count % colour) > 0)
        calm(browser)

    def test_the_theme_button_draws_again_in_other_colours(self, browser, demo):
        opened(browser, demo)
        browser.find_element("id", "theme").click()
        wait(lambda: ready(browser) == "dark")
        dark = palette(samples.hump(), "dark")[0]
        assert dark in browser.find_element("css selector", "#figure-hump .panel").get_attribute("innerHTML")
        browser.find_element("id", "theme").click()
        wait(lambda: ready(browser) == "light")
        browser.execute_script("localStorage.clear()")
        calm(browser)

    def test_csv_and_svg_are_downloaded_from_the_page(self, browser, demo, downloads):
        opened(browser, demo)
        for kind in ("csv", "svg"):
            button = browser.find_element("css selector", f"#figure-law [data-save={kind}]")
            browser.execute_script("arguments[0].click()", button)
            wait((downloads / f"law.{kind}").exists)
        assert (downloads / "law.csv").read_bytes().decode() == samples.law().csv()
        assert (downloads / "law.svg").read_text(encoding="utf-8").startswith("<svg")
        calm(browser)

    def test_a_pointer_shows_the_nearest_row_with_its_interval(self, browser, demo):
        from selenium.webdriver import ActionChains

        opened(browser, demo)
        box = browser.find_element("css selector", "#figure-hump .panel")
        browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", box)
        time.sleep(0.2)
        ActionChains(browser).move_to_element(box).move_by_offset(4, 4).perform()
        text = wait(lambda: browser.find_element("id", "tip").text)
        assert re.search(r"\[\d\.\d+, \d\.\d+\]", text)

    def test_print_shows_static_drawings(self, browser, demo):
        opened(browser, demo)
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
        shown = "return getComputedStyle(document.querySelector(arguments[0])).display"
        assert browser.execute_script(shown, ".live") == "none"
        assert browser.execute_script(shown, ".static") == "block"
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})

    def test_hostile_text_stays_inert(self, browser, tmp_path):
        path = tmp_path / "hostile <script>.html"
        path.write_text(page(samples.hostile(), lead=samples.HOSTILE), encoding="utf-8")
        opened(browser, path, width=390)
        assert browser.title == samples.HOSTILE
        assert browser.execute_script("return document.querySelectorAll('.drawn').length") == 2
        assert browser.execute_script("return document.scripts.length") == 4
        assert browser.execute_script("return document.images.length") == 2
        assert browser.execute_script("return document.querySelectorAll('[onerror], [onload]').length") == 0
        assert "{{ 7 * 7 }}" in browser.find_element("tag name", "h1").text
        browser.execute_script("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        for entry in browser.find_elements("css selector", ".entry"):
            browser.execute_script("arguments[0].click()", entry)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
        calm(browser)

    @pytest.mark.parametrize("theme", ["light", "dark"])
    def test_coloured_text_is_inert_and_fits_a_phone(self, browser, tmp_path, theme):
        path = tmp_path / "text.html"
        texts = (samples.coloured(), samples.hostile_text().edit(name="hostile-text"))
        path.write_text(page(samples.repetition()._replace(figures=texts)), encoding="utf-8")
        opened(browser, path, width=390, theme=theme)
        assert browser.execute_script("return document.querySelectorAll('.drawn').length") == 2
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
        assert browser.execute_script("return document.scripts.length") == 4
        shown = [span.text for span in browser.find_elements("css selector", "#figure-loss-by-token .tokens")]
        assert shown[0].split() == [
            "Mr",
            "Potters\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}",
            "and",
            "Potters.",
        ]
        colour = "return getComputedStyle(document.querySelector(arguments[0])).backgroundColor"
        ends = [browser.execute_script(colour, f"#figure-loss-by-token .ramp .t{i}") for i in (0, 10)]
        wanted = [tuple(int(one[i : i + 2], 16) for i in (1, 3, 5)) for one in THEMES[theme].diverging]
        assert [tuple(map(int, re.findall(r"\d+", end)))[:3] for end in ends] == wanted
        token = browser.find_element("css selector", "#figure-loss-by-token .marked")
        event = "arguments[0].dispatchEvent(new PointerEvent('pointerover', {bubbles: true}))"
        browser.execute_script(event, token)
        assert "1.4" in wait(lambda: browser.find_element("id", "tip").text)
        calm(browser)


def test_nothing_in_the_page_points_outside():
    html = studies()
    body = re.sub(r"<script[^>]*>.*?</script>", "", html, flags=re.S)
    assert not re.search(r"(?:https?:)?//[a-z]", re.sub(r"base64,[A-Za-z0-9+/=]+", "", body))
    assert len(html) < 2_000_000


def test_the_policy_allows_exactly_the_inline_parts():
    html = studies()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', html)
    policy = policy.replace("&#39;", "'")
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    parts = re.findall(r"<(?:script|style)>(.*?)</(?:script|style)>", html, flags=re.S)
    hashes = {base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in parts}
    assert hashes == set(re.findall(r"sha256-([^']+)'", policy))


def test_findings_come_before_figures_with_verdict_interval_n_and_rule():
    html = page(samples.repetition())
    for claim in samples.claims():
        assert html.index(claim.statement) < html.index('class="figure"')
        assert claim.estimate is not None
        assert claim.estimate.text() in html
        assert str(escape(claim.rule)) in html
    assert html.count('class="chip supported"') == 2  # the finding and the explanation


def test_every_figure_shows_number_caption_n_and_both_downloads():
    html = studies()
    assert re.findall(r">Figure (\d)<", html) == list("123456")
    for figure in (*samples.repetition().figures, *samples.memorization().figures):
        (block,) = re.findall(
            f'<figure class="figure" id="figure-{figure.name}".*?</figure>', html, flags=re.S
        )
        assert figure.n in block
        assert figure.caption in block
        assert block.count("data-save=") == 2


def test_the_page_is_the_same_twice():
    assert made() == studies()


def test_twice_the_same_name_is_refused():
    with pytest.raises(SpecError, match="2 reports are named 'repetition'"):
        page([samples.repetition(), samples.repetition()])
    twice = samples.repetition()._replace(figures=(samples.hump(), samples.hump()))
    with pytest.raises(SpecError, match="are named 'hump'"):
        page(twice)
    with pytest.raises(SpecError, match="no report"):
        page([])


def test_a_study_without_anything_still_has_a_page():
    empty = samples.memorization()._replace(findings=(), figures=(), prediction="", source="")
    assert "states no claims" in page(empty)
