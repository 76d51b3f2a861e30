"""A paper is run as one and read figure by figure, at any point of the way."""

import json
import re
import shutil
from pathlib import Path

import pytest

from repetita import report_study, run_study, table
from repetita.errors import SpecError, UserError
from repetita.study.find import find_paper
from repetita.study.prepare import bundle
from repetita.study.walkthrough import publish_bundle
from tests.study.places import Place, repetita
from tests.study.test_collect import folder_of
from tests.study.two import PAPER, write_two


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Place:
    from tests.study.places import write_study

    place = write_study(tmp_path_factory.mktemp("two"))
    write_two(place)
    outcome = run_study(paper_of(place), scale="tiny", root=place.root, processes=1)
    assert (outcome.n_done, outcome.failed) == (6, ())
    return place


@pytest.fixture
def both(finished: Place, tmp_path: Path) -> Place:
    shutil.copytree(finished.study.parent, tmp_path / "copy", copy_function=shutil.copy2)
    return Place(tmp_path / "copy" / "study.py", tmp_path / "copy" / "out")


def paper_of(place: Place) -> Path:
    return place.study.parent / PAPER


def section(html: str, anchor: str) -> str:
    """What stands between the start of a section and that of the next."""
    found = html.split(f'<section class="study step" id="{anchor}">')[1]
    return found.split('<section class="study', maxsplit=1)[0]


def test_runs_are_shared_and_each_study_has_its_page(both: Place) -> None:
    assert len(list((both.root / "runs").iterdir())) == 6, "5 of one study and 1 more of the other"
    published = report_study(paper_of(both), root=both.root)
    assert published.page == both.root / "studies" / "two_paper-tiny" / "page.html"
    for name in ("tiny_study-tiny", "other_study-tiny"):
        assert (both.root / "studies" / name / "page.html").exists()
        assert (both.root / "studies" / name / "table.parquet").exists()


def test_every_figure_has_claim_verdict_power_and_later_work(both: Place) -> None:
    html = report_study(paper_of(both), scale="tiny", root=both.root).page.read_text()
    first, second, third = (section(html, f"step-figure-{i}") for i in (1, 2, 3))
    assert "It ran." in first
    assert "illustrated" in first
    assert "5 of 5 runs, up to 1 seed" in first
    assert "Smallest effect that could be found: 0.1 nats with one seed" in first
    assert "It is not (B)." in second
    assert "supported" in second
    assert "The rest" in third
    assert "The rest" not in second
    assert 'data-figure="law"' in third
    assert 'data-figure="law"' not in second
    shown = second.split('<details class="more"><summary>', 1)[0]
    assert len(re.findall("data-figure", shown)) == 1
    assert "1 more figure and 1 table of this study" in second
    assert str(both.root) not in html
    assert not re.search(r'href="(?!#|data:)', re.sub(r"<script.*?</script>", "", html, flags=re.S))


@pytest.mark.slow
@pytest.mark.ci
def test_the_headlines_share_one_error_rate(both: Place) -> None:
    """Weak alone, lost among eight: what counts is how many claims the page has, run or not."""
    paper = paper_of(both)
    other = both.study.parent / "other.py"
    other.write_text(other.read_text().replace("[5.0, 5.1, 4.9]", "[1.0, 1.15, 0.8]"))
    found = [step.headline for step in walk(both).steps if step.headline]
    assert [claim.verdict for claim in found] == ["illustrated", "supported"]
    more = "".join(
        f'ENTRIES += [Entry(figure="Figure {i}", title="t", claim="c", study="s{i}.py", primary=True)]\n'
        for i in range(4, 10)
    )
    for i in range(4, 10):
        text = both.study.read_text()
        (both.study.parent / f"s{i}.py").write_text(text.replace('"tiny_study"', f'"s{i}"'))
    paper.write_text(paper.read_text().replace("PAPER =", f"{more}\nPAPER ="))
    steps = walk(both).steps
    headlines = [step.headline for step in steps if step.headline]
    assert [claim.verdict for claim in headlines] == ["illustrated", "inconclusive"]
    assert "among 8 primary claims" in headlines[1].note
    assert [step.state for step in steps[3:]] == ["not run yet"] * 6
    own = json.loads(
        repetita("study", "report", other, "--root", both.root, "--json", cwd=both.study.parent).stdout
    )["studies"][0]["findings"]
    assert own[0]["verdict"] == "supported", "its own page has its own family"


def walk(place: Place):  # type: ignore[no-untyped-def]
    shown = publish_bundle(bundle(paper_of(place), scale="tiny"), root=place.root).walk
    assert shown is not None
    return shown


@pytest.mark.slow
@pytest.mark.ci
def test_half_done(both: Place) -> None:
    shutil.rmtree(both.root / "studies" / "other_study-tiny")
    shutil.rmtree(folder_of(both, "repeated"))
    html = report_study(paper_of(both), root=both.root).page.read_text()
    assert "Not run yet." in section(html, "step-figure-2")
    assert "1 of 5 planned runs not started" in section(html, "step-figure-1")
    outcome = run_study(paper_of(both), scale="tiny", root=both.root, processes=1)
    assert (outcome.n_present, outcome.n_done) == (5, 1)
    assert "Not run yet." not in report_study(paper_of(both), root=both.root).page.read_text()


def test_nothing_was_run(place: Place) -> None:
    write_two(place)
    with pytest.raises(UserError, match=r"run it first: repetita study run .* --scale tiny"):
        report_study(paper_of(place), scale="tiny", root=place.root)


def test_a_paper_is_no_study(both: Place) -> None:
    with pytest.raises(SpecError, match="defines no STUDY"):
        table(paper_of(both), scale="tiny", root=both.root)
    with pytest.raises(SpecError, match="memorization_paper is a paper of several studies"):
        table("memorization_paper", root=both.root)
    with pytest.raises(SpecError, match="study tiny_study has no scale 'laptop'"):
        bundle(paper_of(both), scale=None)
    assert find_paper(both.study) is None
    assert find_paper("forgetting") is None
    assert find_paper("nowhere.py") is None


@pytest.mark.slow
@pytest.mark.ci
def test_from_the_command_line(both: Place) -> None:
    folder = both.study.parent
    said = repetita("study", "report", PAPER, "--root", both.root, cwd=folder)
    assert "Figure 2: Is it strong?" in said.stdout
    assert said.stdout.splitlines()[-1].endswith("two_paper-tiny/page.html")
    found = json.loads(repetita("study", "report", PAPER, "--root", both.root, "--json", cwd=folder).stdout)
    assert {label: claim["verdict"] for label, claim in found["paper"].items()} == {
        "Figure 1": "illustrated",
        "Figure 2": "supported",
    }
    plan = repetita("study", "plan", PAPER, "--scale", "tiny", "--root", both.root, cwd=folder).stdout
    assert "other_study" in plan
    assert "6 runs (1 only as shared trunks), 6 complete already" in plan
