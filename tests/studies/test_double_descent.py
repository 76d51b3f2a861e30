"""Planted losses come back as the claims, splits and peaks they were made of."""

import math
from collections.abc import Hashable, Mapping
from typing import Any

import pytest

from repetita.fit.claim import MAX_PRIMARY, Claim
from repetita.report.figure import Figure
from repetita.studies._damage import damages, within_runs
from repetita.studies._damage_laws import Floor, compute_equivalent, law_excess
from repetita.studies._damage_runs import SCALES
from repetita.studies._damage_size import stored
from repetita.studies._grid import Curve, Grid
from repetita.studies.double_descent import STUDY
from repetita.study.collect import Collected
from repetita.study.plan import Analysis
from tests.studies.planted import Value, charts, effect, noise, planted

Labels = Mapping[str, Any]
EXPONENT, COEFFICIENT = 0.06, 7.5
STARVED, HEIGHT, WIDTH = 0.05, 0.4, 1.0


def control(labels: Labels, *, seed_sd: float = 0.01) -> float:
    level: float = COEFFICIENT * labels["non_embedding"] ** -EXPONENT
    return level + noise("seed", labels["seed"], labels["corpus"], sd=seed_sd)


def bump(labels: Labels, *, peak: float, falls: float = 0.5) -> float:
    """Interference over ln passes; the peak moves as N^-falls from its place at 25k."""
    at = peak * (labels["non_embedding"] / 25_472) ** -falls
    return HEIGHT * math.exp(-((math.log(labels["passes"] / at) / WIDTH) ** 2))


def humps(peak: float = 200.0, *, height: float = 1.0, run_sd: float = 0.003, falls: float = 0.5) -> Value:
    """A value function: control + starvation + interference, and a subset memorized at the peak."""

    def value(labels, probe, on, step):
        level = control(labels) + noise(sorted(map(str, labels.items())), sd=run_sd)
        if labels["arm"] == "repeated":
            if probe == "subset":
                at = peak * (labels["non_embedding"] / 25_472) ** -0.5
                return 0.4 * (labels["passes"] / at) ** -1.0
            level += STARVED * height + height * bump(labels, peak=peak, falls=falls)
        if labels["arm"] == "starved":
            level += STARVED * height
        if probe == "curve":
            level += 3.0 * (step + 1) ** -0.5
        return level

    return value


def analysis(collected: Collected) -> Analysis:
    return STUDY.analyse(collected)


def named(found: Analysis) -> dict[str, Claim]:
    return {claim.name: claim for claim in found.claims}


def table(found: Analysis, name: str) -> list[list[Any]]:
    return next([list(row) for row in one.rows] for one in found.tables if one.name == name)


def cell(found: Analysis, name: str, *head: str) -> list[Any]:
    return next(row for row in table(found, name) if tuple(row[: len(head)]) == head)


@pytest.fixture(scope="module")
def overnight() -> Analysis:
    return analysis(planted(STUDY, scale="overnight", value=humps()))


def test_hump_is_found_where_it_was_planted(overnight: Analysis) -> None:
    claims = named(overnight)
    assert claims["hump-25k-f0.5"].verdict == "supported"
    row = cell(overnight, "lines", "25k", "0.5")
    assert float(row[2]) == pytest.approx(200, rel=0.15)
    assert effect(claims["peak-moves"]) == pytest.approx((100_096 / 25_472) ** -0.5, rel=0.2)
    # Half of the excess, starvation included, lies a little outside half of the bump.
    half = math.sqrt(math.log(2)) * WIDTH
    low, high = (float(text.split()[-1]) for text in row[4:6])
    assert low < 200 * math.exp(-half) * 1.3
    assert high > 200 * math.exp(half) / 1.3


def test_marker_agrees_where_the_subset_is_memorized_at_the_peak(overnight: Analysis) -> None:
    claims = named(overnight)
    assert claims["marker-25k-f0.5"].verdict == "supported"
    assert effect(claims["marker-25k-f0.5"]) < 0.3


def test_starvation_and_interference_add_up(overnight: Analysis) -> None:
    claim = named(overnight)["interference-25k-f0.5"]
    expected = HEIGHT * math.exp(-((math.log(256 / 200) / WIDTH) ** 2))
    assert claim.note.startswith("at 256 passes")
    assert effect(claim) == pytest.approx(expected - STARVED, abs=0.02)
    figure = next(figure for figure in overnight.figures if figure.name == "damage-split")
    parts: dict[tuple[object, ...], dict[object, Any]] = {}
    for row in figure.rows:
        parts.setdefault((row["line"], row["passes"]), {})[row["part"]] = row["loss"]
    # Three shares at three sizes, two more at two sizes, the smallest at one.
    assert len(parts) == 9 * 6 + 2 * (5 + 6) + 4
    for part in parts.values():
        assert part["total damage"] == pytest.approx(part["starvation"] + part["interference"], abs=1e-9)
        assert part["starvation"] == pytest.approx(STARVED, abs=0.01)


def test_control_law_is_recovered_and_excess_has_the_size_it_stands_for(overnight: Analysis) -> None:
    caption = next(table.caption for table in overnight.tables if table.name == "controls")
    assert float(caption.split("alpha = ")[1].split()[0]) == pytest.approx(EXPONENT, abs=0.005)
    figure = next(figure for figure in overnight.figures if figure.name == "size-multiplier")
    row = next(r for r in figure.rows if (r["size"], r["fraction"], r["passes"]) == ("25k", 0.5, 256.0))
    level = COEFFICIENT * 25_472**-EXPONENT
    excess = STARVED + HEIGHT * math.exp(-((math.log(256 / 200)) ** 2))
    assert row["multiplier"] == pytest.approx(((level + excess) / level) ** (-1 / EXPONENT), rel=0.1)


def test_headline_comes_first_and_has_the_size_that_was_planted(overnight: Analysis) -> None:
    claim = overnight.claims[0]
    assert claim.name == "half-size"
    assert claim.statement.startswith("N = 100k, f = 0.1, 80 passes")
    at = {"non_embedding": 100_096, "passes": 80.0}
    level = COEFFICIENT * 100_096**-EXPONENT
    ratio = (level + STARVED + bump(at, peak=200.0)) / level
    assert effect(claim) == pytest.approx(ratio ** (-1 / EXPONENT), rel=0.1)
    assert claim.verdict == "supported"


def test_headline_with_a_loss_that_no_control_has_is_an_open_bound() -> None:
    claim = named(analysis(planted(STUDY, scale="overnight", value=humps(height=4.0))))["half-size"]
    assert claim.estimate is not None
    assert claim.estimate.value is None
    assert claim.estimate.high is not None
    assert claim.estimate.high < 0.01
    assert claim.leaning == "supported"
    unbroken = named(analysis(planted(STUDY, scale="laptop", value=humps(height=0.0))))["half-size"]
    assert unbroken.verdict == "contradicted"
    without = planted(STUDY, scale="laptop", value=humps(), there=lambda labels: labels["fraction"] != 0.1)
    unfinished = named(analysis(without))["half-size"]
    assert (unfinished.verdict, unfinished.note) == ("inconclusive", "not run yet")
    assert unfinished.primary


def test_edges_of_the_band_fall_as_planted(overnight: Analysis) -> None:
    claim = named(overnight)["band-falls"]
    assert claim.verdict == "supported"
    assert effect(claim) == pytest.approx(-0.5, abs=0.1)
    caption = next(table.caption for table in overnight.tables if table.name == "band")
    assert all(f"{side} edge: exponent -0." in caption for side in ("left", "right"))
    rows = next(table.rows for table in overnight.tables if table.name == "band")
    assert {row[1] for row in rows if row[6] == "no"} == {"0.01"}
    still = named(analysis(planted(STUDY, scale="overnight", value=humps(falls=0.0))))["band-falls"]
    assert still.verdict != "supported"
    assert still.estimate is None or still.estimate.holds(0.0)
    one = named(analysis(planted(STUDY, scale="laptop", value=humps())))["band-falls"]
    assert one.verdict == "illustrated"


def test_the_data_constrained_law_rises_with_passes_and_stays_under_starvation(overnight: Analysis) -> None:
    figure = next(figure for figure in overnight.figures if figure.name == "law-data-constrained")
    lines: dict[object, list[tuple[float, float]]] = {}
    for row in figure.rows:
        if row["of"] == "data-constrained law":
            lines.setdefault(row["line"], []).append((float(row["passes"] or 0), float(row["loss"] or 0)))
    assert len(lines) == 9 + 4 + 1
    for points in lines.values():
        losses = [loss for _, loss in sorted(points)]
        assert losses == sorted(losses)
        assert 0 < losses[0] < losses[-1] < STARVED * 1.2
    one = Grid({"25k": {0: 4.0}}, {("25k", 0.5): {0: 4.1}}, {}, {}, {"25k": 25_472}, 1024, 1e6)
    assert law_excess(one, ("25k", 0.5), 1.0) == pytest.approx(0)
    assert law_excess(one, ("100k", 0.5), 8.0) is None


def test_stored_bits_by_hand() -> None:
    """1,000 tokens read 500 times; 2 nats each of them, over 25,472 parameters."""
    line = ("25k", 0.5)
    one = Grid(
        {"25k": {0: 4.0}}, {}, {line: {500.0: {0: 4.5}}}, {line: {500.0: {0: 2.0}}}, {"25k": 25_472}, 9, 1e6
    )
    assert stored(one, line, 500.0) == pytest.approx(1000 * 2 / math.log(2) / 25_472)
    assert stored(one, line, 8.0) is None


def test_damage_as_compute_by_hand(overnight: Analysis) -> None:
    """A control of 2 + 2 nats, a run of 2 + 4: at an exponent of 1/2 a quarter of the compute is left."""
    line = ("25k", 0.1)
    one = Grid({"25k": {0: 4.0}}, {}, {line: {80.0: {0: 6.0}, 8.0: {0: 4.0}}}, {}, {"25k": 25_472}, 9, 1e6)
    (figure,) = compute_equivalent(one, floor=Floor(2.0, 0.5, "offset 2"))
    lost = {row["passes"]: row["lost"] for row in figure.rows}
    assert lost == {80.0: pytest.approx(0.75), 8.0: pytest.approx(0.0)}
    assert not list(compute_equivalent(one, floor=Floor(0.0, None, "none")))
    assert not list(compute_equivalent(one, floor=Floor(5.0, 0.5, "above the controls")))
    shown = next(figure for figure in charts(overnight) if figure.name == "law-compute-equivalent")
    assert {rule.panel for rule in shown.rules} == {None, "f = 0.1"}


def test_flat_grid_has_no_hump() -> None:
    found = analysis(planted(STUDY, scale="overnight", value=humps(height=0.0)))
    assert named(found)["band-falls"].verdict == "inconclusive"
    verdicts = {name: claim.verdict for name, claim in named(found).items() if claim.primary}
    assert "supported" not in {v for name, v in verdicts.items() if name.startswith(("hump", "interference"))}


def test_the_damage_is_not_read_at_a_seed_s_own_maximum() -> None:
    """Pure noise: the highest of six points has a damage, the point that the other seeds choose has none."""
    line = ("25k", 0.5)
    own: list[float] = []
    chosen: list[float] = []
    for place in range(200):
        control: dict[Hashable, float] = {seed: noise(place, seed, sd=0.05) for seed in range(3)}
        cells: dict[float, dict[Hashable, float]] = {
            passes: {seed: noise(place, passes, seed, sd=0.05) + 4 for seed in range(3)}
            for passes in (8.0, 25.0, 80.0, 256.0, 800.0, 2560.0)
        }
        control = {seed: level + 4 for seed, level in control.items()}
        grid = Grid({"25k": control}, {}, {line: cells}, {}, {"25k": 25_472}, 1024, 1e6)
        (damage,) = damages(grid)
        chosen += damage.excess.values()
        own += [max(cell[seed] for cell in cells.values()) - control[seed] for seed in range(3)]
    assert sum(own) / len(own) > 0.05
    assert abs(sum(chosen) / len(chosen)) < 0.01


def test_other_rates_and_corpora_are_shown_beside(overnight: Analysis) -> None:
    names = set(named(overnight))
    assert {"hump-25k-f0.5-0.5-x-rate", "hump-25k-f0.5-2-x-rate", "hump-100k-f0.5-python-stdlib"} <= names
    figure = next(figure for figure in overnight.figures if figure.name == "loss-by-arm")
    assert {row["arm"] for row in figure.rows} == {
        "sotu, standard rate", "0.5 x rate", "2 x rate", "python-stdlib",
    }  # fmt: skip
    code = cell(overnight, "arms", "python-stdlib", "25k", "0.5")
    assert float(code[4]) == pytest.approx(200, rel=0.15)
    excess = STARVED + HEIGHT * math.exp(-((math.log(256 / 200) / WIDTH) ** 2))
    assert float(code[6].split()[0]) == pytest.approx(excess, abs=0.02)


def test_peak_at_the_edge_decides_nothing_but_counts_as_a_test() -> None:
    found = named(analysis(planted(STUDY, scale="laptop", value=humps(1e4))))
    assert found["hump-25k-f0.5"].verdict == "inconclusive"
    assert found["hump-25k-f0.5"].primary
    assert found["marker-25k-f0.5"].verdict == "inconclusive"
    assert found["peak-moves"].verdict == "inconclusive"


def test_seeds_that_cannot_show_the_peak_do_not_contradict_it() -> None:
    """Seeds 1 and 2 run around the expected peak only; here it lies below what they cover."""
    found = named(analysis(planted(STUDY, scale="laptop", value=humps(30.0))))
    assert found["hump-25k-f0.5"].verdict == "illustrated"
    assert "2 seeds left out" in found["hump-25k-f0.5"].note
    assert "highest loss of the line at 32 passes" in found["half-size"].note


def test_descent_in_time() -> None:
    def value(labels, probe, on, step):
        level = control(labels) + 3.0 * (step + 1) ** -0.5
        if probe == "curve" and labels["arm"] == "repeated":
            level += 1.5 * math.exp(-((math.log((step + 1) / 300) / 0.5) ** 2))
        return level

    falling = analysis(planted(STUDY, scale="laptop", value=value))
    claim = named(falling)["within-run"]
    assert {row[5] for row in table(falling, "within-runs")} == {"falls, rises, falls"}
    assert claim.verdict == "illustrated"
    assert effect(claim) > 0.2
    assert "constant rate" in claim.statement
    flat = analysis(planted(STUDY, scale="laptop", value=humps()))
    assert effect(named(flat)["within-run"]) == 0
    runs = table(flat, "within-runs")
    assert {row[0] for row in runs} == {"constant", "cosine"}
    assert {row[5] for row in runs} == {"no rise, no plateau"}


def test_a_plateau_is_seen_though_runs_differ_a_little_in_tokens() -> None:
    tokens = [20_000 * 1.3**i for i in range(20)]
    loss = [6.0 - 0.3 * min(i, 8) - 0.3 * max(0, i - 14) for i in range(20)]
    control = Curve(
        "control", "25k", None, None, 0, "constant", tuple(tokens), tuple(6.0 - 0.3 * i for i in range(20))
    )
    treated = Curve(
        "repeated", "25k", 0.5, 80.0, 0, "constant", tuple(1.0002 * at for at in tokens), tuple(loss)
    )
    (found,) = within_runs([control, treated], schedule="constant")
    assert found.hump.kind == "plateau"
    elsewhere = control._replace(tokens=tuple(1.5 * at for at in tokens))
    (apart,) = within_runs([elsewhere, treated], schedule="constant")
    assert apart.hump.kind == "none"


PARTIAL = {
    "nothing": lambda labels: False,
    "one seed": lambda labels: labels["seed"] == 0,
    "no control": lambda labels: labels["arm"] != "control",
    "controls only": lambda labels: labels["arm"] == "control",
    "starved only": lambda labels: labels["arm"] == "starved",
    "nothing starved": lambda labels: labels["arm"] != "starved",
    "constant rate only": lambda labels: labels["curve"] == "constant",
    "no constant control": lambda labels: (labels["curve"], labels["arm"]) != ("constant", "control"),
    "another corpus only": lambda labels: labels["corpus"] != "sotu",
    "one size": lambda labels: labels["size"] == "25k",
    "two passes": lambda labels: labels["passes"] in (None, 25.0, 80.0),
    "one run": lambda labels: labels["passes"] == 80.0 and labels["seed"] == 0 and labels["size"] == "25k",
    "seeds apart": lambda labels: (
        labels["passes"] is None or (labels["passes"] < 50) == (labels["seed"] == 0)
    ),
    "every third": lambda labels: int(noise(sorted(map(str, labels.items())), sd=1e6)) % 3 == 0,
}


@pytest.mark.parametrize("scale", ["demo", pytest.param("laptop", marks=pytest.mark.slow), "overnight"])
@pytest.mark.parametrize("name", PARTIAL)
def test_a_partial_study_is_analysed(name: str, scale: str) -> None:
    found = analysis(planted(STUDY, scale=scale, value=humps(), there=PARTIAL[name]))
    assert sum(claim.primary for claim in found.claims) <= MAX_PRIMARY
    if name == "nothing":
        assert found.warnings


@pytest.mark.parametrize("probe", ["curve", "test", "subset"])
def test_a_failed_probe_is_survived(probe: str) -> None:
    value = humps()

    def skipping(labels, name, on, step):
        return None if name == probe else value(labels, name, on, step)

    analysis(planted(STUDY, scale="laptop", value=skipping))


@pytest.mark.parametrize("scale", SCALES)
def test_scale(scale: str) -> None:
    """At most eight primary claims, each with what it can detect; figures that can be drawn and read."""
    found = analysis(planted(STUDY, scale=scale, value=humps()))
    primary = {claim.name for claim in found.claims if claim.primary}
    assert 0 < len(primary) <= MAX_PRIMARY
    assert primary == set(STUDY.detectable(scale))
    for figure in found.figures:
        assert isinstance(figure, Figure)
        assert len(figure.rows) < 5000
        assert len(figure.series_values()) <= 12
    names = [one.name for one in (*found.figures, *found.tables)]
    assert len(set(names)) == len(names)
    assert all(row.why for row in STUDY.deviations(scale))
