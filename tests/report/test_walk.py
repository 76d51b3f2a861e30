"""The page of a paper: figure by figure, its own figures drawn when they are seen, on a phone as well."""

import re
from pathlib import Path
from typing import Any

import pytest

from repetita.errors import SpecError
from repetita.report.walk import Step, Walk, walk_page
from tests.report import samples
from tests.report.test_page import browser, browser_test, calm, downloads, opened, wait

__all__ = ["browser", "downloads"]


def walk() -> Walk:
    """One step with all there can be, one with a table, one that was not run."""
    one, two = samples.repetition(), samples.memorization()
    first, *rest = one.findings
    return Walk(
        title="A paper, figure by figure",
        lead="Together.",
        source="Somebody 2000",
        steps=[
            Step(
                "Figure 1", "Is it so?", says="It is, by 0.3.", later="It is not (Other 2001).", primary=True,
                power="3 seeds.", headline=first, findings=rest[:1], more_findings=rest[1:],
                figures=one.figures[:1], tables=one.tables,
                more_figures=one.figures[1:], deviations=one.deviations, warnings=("one run is missing",),
            ),
            Step("Figure 10 left", "And this?", says="Yes.", findings=two.findings, figures=two.figures),
            Step("Figure 10 right", "And that?", says="No.", state="not run yet", primary=True),
        ],
        tables=[*two.tables],
        provenance=one.provenance,
    )  # fmt: skip


def hostile() -> Walk:
    report = samples.hostile()
    step = Step(
        samples.HOSTILE, samples.HOSTILE, says=samples.HOSTILE, later=samples.HOSTILE, power=samples.HOSTILE,
        headline=report.findings[0], figures=report.figures[:1], more_figures=report.figures[1:],
        deviations=report.deviations, warnings=[samples.HOSTILE],
    )  # fmt: skip
    return Walk(title=samples.HOSTILE, lead=samples.HOSTILE, source=samples.HOSTILE, steps=[step])


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("walk") / "walk.html"
    path.write_text(walk_page(walk()), encoding="utf-8")
    return path


class TestInABrowser:
    pytestmark = browser_test

    @pytest.mark.parametrize("theme", ["light", "dark"])
    @pytest.mark.parametrize("width", [1280, 390])
    def test_what_is_shown_is_drawn_and_what_is_folded_when_it_is_unfolded(
        self, browser: Any, page: Path, width: int, theme: str
    ) -> None:
        opened(browser, page, width=width, theme=theme)
        drawn = "return document.querySelectorAll('.drawn').length"
        shown = sum(len(step.figures) for step in walk().steps)
        assert browser.execute_script(drawn) == shown
        browser.execute_script("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        folded = sum(len(step.more_figures) for step in walk().steps)
        assert folded
        wait(lambda: browser.execute_script(drawn) == shown + folded)
        for box in browser.find_elements("css selector", ".panel"):
            assert 200 < box.size["width"] <= width
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        calm(browser)

    def test_the_theme_changes_what_was_unfolded(self, browser: Any, page: Path) -> None:
        opened(browser, page)
        folded = walk().steps[0].more_figures[0].name
        browser.execute_script("document.querySelectorAll('details.more').forEach((d) => { d.open = true; })")
        theme = f"return document.getElementById('figure-{folded}').dataset.theme"
        wait(lambda: browser.execute_script(theme) == "light")
        browser.find_element("id", "theme").click()
        wait(lambda: browser.execute_script(theme) == "dark")
        browser.execute_script("localStorage.clear()")
        calm(browser)

    def test_hostile_text_stays_inert(self, browser: Any, tmp_path: Path) -> None:
        path = tmp_path / "hostile.html"
        path.write_text(walk_page(hostile()), encoding="utf-8")
        opened(browser, path, width=390)
        assert browser.title == samples.HOSTILE
        assert browser.execute_script("return document.scripts.length") == 4
        assert browser.execute_script("return document.querySelectorAll('[onerror], [onload]').length") == 0
        browser.execute_script("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
        calm(browser)


def test_links_stay_inside_the_page() -> None:
    html = walk_page(walk())
    body = re.sub(r"<script.*?</script>", "", html, flags=re.S)
    links = re.findall(r'href="([^"]*)"', body)
    assert {link for link in links if not link.startswith(("#", "data:"))} == set()
    for link in links:
        if link.startswith("#"):
            assert f'id="{link[1:]}"' in body
    assert not re.search(r"(?:https?:)?//[a-z]", re.sub(r"base64,[A-Za-z0-9+/=]+", "", body))


def test_each_step_says_what_the_paper_says_and_what_came_of_it() -> None:
    html = walk_page(walk())
    for step in walk().steps:
        part = html.split(f'id="{step.anchor}"')[1].split('<section class="study')[0]
        assert step.says in part
        assert step.later in part
        if step.headline:
            assert step.headline.statement in part
    assert "Not run yet." in html
    assert "2 claims of this page share one error rate" in html
    assert re.findall(r">Plot (\d+)<", html) == [str(i) for i in range(1, 7)]


def test_folded_figures_have_no_static_drawing() -> None:
    html = walk_page(walk())
    shown = sum(len(step.figures) for step in walk().steps)
    assert html.count('<img class="static"') == shown


def test_the_page_is_the_same_twice() -> None:
    assert walk_page(walk()) == walk_page(walk())


def test_mistakes() -> None:
    with pytest.raises(SpecError, match="without a step"):
        walk_page(walk()._replace(steps=()))
    steps = walk().steps
    with pytest.raises(SpecError, match="2 steps are named 'step-figure-1'"):
        walk_page(walk()._replace(steps=[steps[0], steps[0]]))
    twice = steps[2]._replace(figures=steps[0].figures)
    with pytest.raises(SpecError, match="figures or tables are named"):
        walk_page(walk()._replace(steps=[*steps, twice._replace(label="Figure 11")]))
