"""A run of ours knows what it read when: its series says what its own journal and its schedule say."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from repetita.cadence import At, Every
from repetita.cli.app import app
from repetita.corpus.schedule import Schedule
from repetita.corpus.sequences import Corpus, CorpusSpec
from repetita.corpus.splits import Splits
from repetita.corpus.treatment import Insertion, Insertions, RepeatedSubset, Stream, Treatment
from repetita.errors import SpecError
from repetita.journal import table
from repetita.measure.memorization import ScoreProbe
from repetita.report.figure import Figure
from repetita.study.audit_texts import Text, read_texts
from repetita.study.corpora import Corpora
from repetita.study.known_order import KnownOrder
from repetita.study.own_order import order_of_run, places, write_run_texts
from repetita.study.series_study import SeriesFound, measure_series, series_audit
from repetita.study.single import train_run
from repetita.train.recipe import RunSpec, Start
from tests.study.places import write_study
from tests.study.tiny_study import MODEL, run

KEPT = (0, 4, 8, 12, 16, 20)
ON = ("repeated", "train", "test")


class World(NamedTuple):
    """A run with six kept checkpoints, its corpus and its schedule."""

    root: Path
    run: Path
    spec: RunSpec
    corpus: Corpus
    schedule: Schedule


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> CorpusSpec:
    place = write_study(tmp_path_factory.mktemp("text"))
    ours = run(Stream()).corpus
    return ours.edit(
        source=str(place.study.parent / "corpus"), breaks="document", splits=Splits(test="0.1", special="0.1")
    )


def trained(root: Path, treatment: Treatment, corpus: CorpusSpec, **changes: Any) -> World:
    spec = run(treatment, steps=20).edit(corpus=corpus, **changes)
    done = train_run(
        spec, root=root, probes=[ScoreProbe(on=("test",), max_sequences=32, cadence=At(at=KEPT))],
        keep=Every(n=4),
    )  # fmt: skip
    corpora = Corpora(root)
    return World(root, done.path, spec, corpora.open(spec.corpus), corpora.schedule(spec))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, corpus: CorpusSpec) -> World:
    root = tmp_path_factory.mktemp("out")
    made = trained(root, RepeatedSubset(fraction="0.5", n_sequences=8), corpus)
    train_run(
        made.spec, root=root, keep=Every(n=4),
        probes=[ScoreProbe(name="all", on=ON, max_sequences=32, cadence=At(at=KEPT))],
    )  # fmt: skip
    return made


@pytest.fixture(scope="module")
def found(world: World) -> SeriesFound:
    name = f"{world.run.name}@all"  # Its name is enough, without run: before it.
    audit = series_audit([name], root=world.root)
    assert (audit.prompts, audit.suffixes) == ((8,), (8,)), "sequences have 16 tokens"
    return measure_series(audit, root=world.root)


def text_of(world: World, name: str, row: int) -> str:
    ids = world.corpus.sets[name].rows(np.array([row])).targets[0]
    return world.corpus.tokenizer.decode(ids.tolist())


def figure_axis(found: SeriesFound, name: str) -> tuple[str, str]:
    (axis,) = (one.x for one in found.report.figures if isinstance(one, Figure) and one.name == name)
    return axis.scale, axis.title


def texts_of(*texts: str, folder: Path) -> list[Text]:
    file = folder / "texts.jsonl"
    file.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    return read_texts((str(file),))


def times(order: KnownOrder, texts: list[Text]) -> list[list[int]]:
    return [order.times_seen(one.sha256, step=KEPT).tolist() for one in texts]


@pytest.mark.slow
@pytest.mark.ci
def test_a_series_of_a_run_has_the_numbers_of_its_journal(world: World, found: SeriesFound) -> None:
    journal = table.measurements([world.run]).filter(pl.col("metric").is_in(["loss", "memorized"]))
    whole = {(row["on"], row["metric"], row["step"]): row for row in journal.iter_rows(named=True)}
    compared = 0
    for row in found.by_group.filter(pl.col("instrument") == "score").iter_rows(named=True):
        group = row["group"].removesuffix(".jsonl")
        if row["metric"] != "bits_per_byte" and group in ON:
            other = whole[group, row["metric"], row["step"]]
            assert row["n"] == other["n"], "the same rows are read"
            assert row["value"] == pytest.approx(other["value"], rel=1e-5)
            compared += 1
    assert compared == len(ON) * 2 * len(KEPT)


def test_times_seen_are_those_of_the_schedule(world: World, tmp_path: Path) -> None:
    paths = write_run_texts(world.run, limit=32, root=world.root).files
    assert [path.stem for path in paths] == ["repeated", "special", "train", "test"]
    texts = read_texts(tuple(map(str, paths)))
    order = order_of_run(world.run, texts=texts, root=world.root)
    alone = 0
    for one in texts:
        name, index = one.name.split()
        of_set = {"repeated": "train"}.get(name, name)
        if sum(other.text.strip() == one.text.strip() for other in texts) > 1:
            continue
        seen = [
            int(world.schedule.times_seen(set=of_set, index=int(index), step=step)) for step in (*KEPT, 7)
        ]
        if len(list(places([one], corpus=world.corpus))) == 1:
            assert order.times_seen(one.sha256, step=(*KEPT, 7)).tolist() == seen
            alone += 1
    assert alone > 50 and not order.unclear & {one.sha256 for one in texts}


@pytest.mark.slow
def test_the_page_says_what_reading_did_without_a_table(world: World, found: SeriesFound) -> None:
    tables = {one.name: one for one in found.report.tables}
    row = dict(zip(tables["series-effects"].columns, tables["series-effects"].rows[0], strict=True))
    assert row["texts read"] and row["not read"] and "series" not in row, "the title names it"
    assert figure_axis(found, "series-loss") == ("linear", "step")
    figure = next(one for one in found.report.figures if one.name == "series-times-seen")
    last = [row for row in figure.rows if row["step"] == 20]
    assert {row["times"] for row in last} >= {0, 5}, "40 repeated slots of 80 over 8 sequences"
    assert not any("not known" in warning for warning in found.report.warnings)


def test_texts_are_found_wherever_they_lie(world: World, tmp_path: Path) -> None:
    repeated = int(world.schedule.members("repeated")[0])
    one = text_of(world, "train", repeated)
    seen = [int(world.schedule.times_seen(set="train", index=repeated, step=step)) for step in KEPT]
    whole, tail = one[2:-2], one[8:] + text_of(world, "train", repeated + 1)
    texts = texts_of(f"\n {whole}\n", tail, "geese fly south", folder=tmp_path)
    order = order_of_run(world.run, texts=texts, root=world.root)
    assert times(order, texts) == [seen, [0] * 6, [0] * 6] and seen[-1] == 5
    assert order.unclear == {texts[1].sha256}, "its parts were read at different times"


def test_inserted_items_are_read_when_they_are_inserted(corpus: CorpusSpec, tmp_path: Path) -> None:
    items = (Insertion(index=3, count=4, start=2, stop=9),)
    made = trained(tmp_path, Insertions(base=Stream(), items=items), corpus)
    texts = texts_of(text_of(made, "special", 3), text_of(made, "special", 4), folder=tmp_path)
    (inserted, other) = times(order_of_run(made.run, texts=texts, root=made.root), texts)
    assert (inserted[0], inserted[-1], other) == (0, 4, [0] * 6)
    child = trained(tmp_path, Stream(), corpus, start=Start(run=made.spec), seed=3)
    again = times(order_of_run(child.run, texts=texts, root=made.root), texts)
    assert again[0] == [4] * 6, "what its parent read, it has read before its first step"


def test_a_run_whose_order_cannot_be_told_still_has_its_page(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Callable[..., Any]:
        raise SpecError("the text is gone")

    (tmp_path / "geese.txt").write_text("geese fly south, and so do swans; ducks stay")
    monkeypatch.setattr("repetita.study.series_study.order_of_run", refuse)
    audit = series_audit([f"run:{world.run}@all"], texts=(str(tmp_path / "geese.txt"),), probes=("score",))
    found = measure_series(audit, root=world.root)
    assert any("is not known here: the text is gone" in warning for warning in found.report.warnings)
    assert len(found.by_group.filter(pl.col("metric") == "loss")) == len(KEPT)


@pytest.mark.slow
def test_two_runs_are_two_series(world: World, corpus: CorpusSpec) -> None:
    other = trained(world.root, Stream(), corpus, model=MODEL.edit(d_model=16))
    names = [f"run:{one.name}@all" for one in (world.run, other.run)]
    audit = series_audit(names, probes=("score",), root=world.root)
    found = measure_series(audit, root=world.root)
    named = {f"run:{one.name}" for one in (world.run, other.run)}
    assert set(found.by_group["series"]) == named
    tables = {one.name: one for one in found.report.tables}
    effects = [dict(zip(tables["series-effects"].columns, row, strict=True)) for row in
               tables["series-effects"].rows]  # fmt: skip
    assert {row["series"] for row in effects} == named, "each by its own order"


@pytest.mark.slow
def test_the_command_needs_only_a_name(world: World) -> None:
    arguments = ["--quiet", "series", f"{world.run.name}@all", "--root", world.root, "--json"]
    done = CliRunner().invoke(app, list(map(str, [*arguments, "--probe", "score"])))
    assert done.exit_code == 0, done.output
    tables = json.loads(done.stdout)["tables"]
    assert {row["texts"] for row in tables["series-rises"]} >= {"repeated.jsonl", "test.jsonl"}
    assert tables["series-effects"], "what reading did is known without a table"
