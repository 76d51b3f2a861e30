"""A paper of two studies that share runs, in files beside each other."""

from pathlib import Path

from tests.study.places import Place

PAPER = "two.py"

OTHER = """
OWN = PlannedRun(spec=run(Stream(), seed=1), labels={"arm": "own"}, probes=(TEST,))


def figure(name: str) -> "Figure":
    from repetita.report.figure import Axis, Figure, Layer

    x, y = Axis(column="x", title="x"), Axis(column="y", title="y")
    rows = ({"x": 1, "y": 2}, {"x": 2, "y": 3})
    words = {"title": f"The {name}", "caption": "Two points.", "n": "2 points"}
    return Figure(name=name, rows=rows, x=x, y=y, layers=(Layer(kind="point"),), **words)


def analyse_other(collected: "Collected") -> Analysis:
    from repetita.fit.claim import directional
    from repetita.report.page import Table

    loss = collected.where(metric="loss", on="test", step=12)["value"].to_list()
    words = {"source": "nobody"}
    return Analysis(
        claims=[
            directional([5.0, 5.1, 4.9], name="strong", statement="It is strong", **words),
            directional(loss, name="rest", statement="The rest", primary=False, **words),
        ],
        figures=tuple(map(figure, ("law", "hump", "curve"))),
        tables=[Table("losses", "Losses", "The last.", "1 run", ["loss"], [[value] for value in loss])],
    )


STUDY = Study(
    name="other_study",
    title="Another study",
    question="Does it share?",
    prediction="It does",
    source="no paper",
    scales={"tiny": lambda: [*tiny()[2:4], OWN]},
    analyse=analyse_other,
)
"""
"""It has the repeated run and a fork of the tiny study, and a run of its own."""

TWO = """
from repetita.study.paper import Entry, Paper

ENTRIES = [
    Entry(figure="Figure 1", title="Does it run?", claim="It ran.", study="study.py", primary=True),
    Entry(
        figure="Figure 2", title="Is it strong?", claim="It was.", later="It is not (B).", study="other.py",
        primary=True,
    ),
    Entry(
        figure="Figure 3", title="And the rest?", claim="Rest.", study="other.py", claims=("rest",),
        figures=("law",),
    ),
]

PAPER = Paper(
    name="two_paper", title="Two studies", lead="In miniature.", source="Nobody 2000", entries=tuple(ENTRIES)
)
"""


def write_two(place: Place) -> Path:
    """Writes other.py and two.py beside the tiny study; the path of the former."""
    text = place.study.read_text()
    other = place.study.parent / "other.py"
    other.write_text(text[: text.index("STUDY = Study(")] + OTHER)
    (place.study.parent / PAPER).write_text(TWO)
    return other
