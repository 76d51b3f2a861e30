"""Coloured text keeps its tokens and values, colours them by one scale, and is nothing but text."""

import csv
import io
from xml.etree import ElementTree

import pytest

from repetita.errors import SpecError
from repetita.report.coloured import STEPS, Excerpt, svg_of_text, visible
from repetita.report.draw import svg
from repetita.report.page import page
from repetita.report.palette import THEMES, diverging
from repetita.study.publish import write_figures
from tests.report import samples
from tests.report.test_draw import contrast


def values(*given: float | None) -> list[int]:
    """Shades of these values on a scale that ends at 1."""
    excerpt = Excerpt(tokens=("a",) * len(given), values=given)
    return [one.shade for one in samples.coloured().edit(limit=1.0, excerpts=(excerpt,)).shown(excerpt)]


def test_shades_follow_the_values_and_end_at_the_limit():
    assert values(None, 0.0, 0.05, 1.0, -1.0, 7.0) == [0, 0, 0, STEPS, -STEPS, STEPS]
    ladder = values(*(i / 50 - 1 for i in range(101)))
    assert ladder == sorted(ladder)
    assert set(ladder) == set(range(-STEPS, STEPS + 1))


@pytest.mark.parametrize("scale", [1e-4, 0.3, 1.0, 250.0])
def test_one_outlier_does_not_pale_the_others(scale):
    many = (*(scale * i / 200 for i in range(200)), 1000.0 * scale)
    text = samples.coloured().edit(excerpts=(Excerpt(tokens=("a",) * len(many), values=many),))
    assert scale * 0.9 < text.reach() < 2.1 * scale
    assert f"{text.reach():g}" in text.ends()[1]


def test_a_text_without_values_has_a_scale():
    text = samples.coloured().edit(excerpts=(Excerpt(tokens=("a",), values=(None,)),))
    assert text.reach() == 1.0
    assert "<svg" in svg(text)


def test_the_csv_holds_every_token_with_its_value_and_mark():
    text = samples.coloured()
    rows = list(csv.DictReader(io.StringIO(text.csv())))
    assert len(rows) == 16
    assert {row["n"] for row in rows} == {text.n}
    assert [row["token"] for row in rows[:3]] == [" Mr", " Pot", "ters"]
    assert rows[0]["value"] == ""
    assert float(rows[3]["value"]) == pytest.approx(0.2)
    assert [row["position"] for row in rows if row["marked"]] == ["6"]
    hostile = samples.hostile_text().csv()
    assert "'=cmd()" in hostile
    assert "\x1b" not in hostile


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_an_svg_is_text_and_rectangles_of_every_token(theme):
    for text in (samples.coloured(), samples.hostile_text()):
        root = ElementTree.fromstring(svg_of_text(text, theme=theme))
        elements = list(root.iter())
        assert {one.tag.rpartition("}")[2] for one in elements} == {"svg", "rect", "text"}
        attributes = {name for one in elements for name in one.attrib}
        assert not {name for name in attributes if name.startswith("on") or "href" in name}
        width = float(root.attrib["width"])
        for one in elements:
            if "textLength" in one.attrib:
                assert float(one.attrib["x"]) + float(one.attrib["textLength"]) <= width
        drawn = "".join(one.text or "" for one in elements if "textLength" in one.attrib)
        wanted = "".join(visible(token) for one in text.excerpts for token in one.tokens)
        assert drawn.replace("\N{NO-BREAK SPACE}", " ") == wanted


def test_what_has_no_shape_is_written_out():
    assert visible("\u202ea\x1b\ufeff") == "\\u202ea\\u001b\\ufeff"
    assert visible(" caf\u00e9 \u4e2d") == " caf\u00e9 \u4e2d"


def test_ink_is_readable_on_every_shade_and_the_ends_differ():
    for name, theme in THEMES.items():
        shades = diverging(2 * STEPS + 1, name)
        assert shades[STEPS] == theme.background
        assert all(contrast(theme.ink, shade) >= 4.5 for shade in shades)
        assert contrast(shades[0], theme.background) >= 1.8
        assert contrast(shades[-1], theme.background) >= 1.8


def test_it_stands_among_figures(tmp_path):
    figures = (samples.hump(), samples.coloured())
    html = page(samples.repetition()._replace(figures=figures))
    assert ">Figure 2<" in html
    assert html.count('class="shades"') == 1
    assert "style=" not in html[html.index("<body") : html.index('id="data"')]
    write_figures(figures[1:], drawings={"loss-by-token": svg(figures[1])}, folder=tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"loss-by-token.svg", "loss-by-token.csv"}


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: Excerpt(tokens=("a", "b"), values=(1.0,)), "2 tokens and 1 values"),
        (lambda: Excerpt(tokens=("a",), values=(float("nan"),)), "finite number"),
        (lambda: Excerpt(tokens=("a",), values=(1.0,), marks=(1,)), "outside the 1 tokens"),
        (lambda: samples.coloured().edit(name="A B"), "lower-case words"),
        (lambda: samples.coloured(("a",) * 3000), "show a shorter text"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_a_sentence(made, said):
    with pytest.raises(SpecError, match=said):
        made()
