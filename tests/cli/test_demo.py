"""The demo's stories fit on one page and into five minutes."""

from typing import Any

from repetita.cli import demo
from repetita.report.page import Report, page
from repetita.study.find import find_study
from repetita.study.plan import PlannedRun, Study
from repetita.study.price import Rates
from tests.studies import test_double_descent, test_forgetting, test_memorization_speed
from tests.studies.planted import planted

STUDIES: dict[str, Study] = {name: find_study(name).study for name in demo.STUDIES}


def test_stories_come_in_the_order_of_the_page() -> None:
    assert demo.STUDIES == ("memorization_speed", "forgetting", "double_descent")


def test_one_page_holds_them_all() -> None:
    """No two figures or tables of the three have one name, which a page refuses."""
    tables: dict[str, Any] = {
        "memorization_speed": test_memorization_speed.made("demo", test_memorization_speed.Plant()),
        "forgetting": test_forgetting.made("demo", test_forgetting.kept_by()),
        "double_descent": planted(STUDIES["double_descent"], scale="demo", value=test_double_descent.humps()),
    }
    reports = []
    for name, study in STUDIES.items():
        found = study.analyse(tables[name])
        assert found.figures
        reports.append(
            Report(
                name=name.replace("_", "-"),
                title=study.title,
                question=study.question,
                prediction=study.prediction,
                source=study.source,
                findings=found.claims,
                figures=found.figures,
                tables=found.tables,
            )
        )
    text = page(reports, title=demo.TITLE, lead=demo.LEAD)
    assert [text.index(f">{study.title}<") for study in STUDIES.values()] == sorted(
        text.index(f">{study.title}<") for study in STUDIES.values()
    )
    assert demo.TITLE in text


def test_memorization_takes_its_share_of_the_time() -> None:
    """At the rates of the price list a quarter of the five minutes, on two processes."""

    def seconds(run: PlannedRun) -> float:
        spec = run.spec
        rate = Rates().tokens_per_second(spec.model, tokens_per_step=spec.batch_size * spec.corpus.length)
        return spec.steps * spec.batch_size * spec.corpus.length / rate

    runs = STUDIES["memorization_speed"].runs("demo")
    assert sum(map(seconds, runs)) / 2 < 75
