"""Runs that another trainer trains: the Trainer of transformers makes the run that our loop makes."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import RandomSampler

from repetita.cadence import At
from repetita.corpus.sequences import open_corpus
from repetita.corpus.treatment import RepeatedSubset
from repetita.errors import RunFolderError, SpecError, TrainingDiverged
from repetita.journal import table
from repetita.journal.folder import read_header, read_journal, status, verify
from repetita.measure.memorization import ScoreProbe
from repetita.model.config import ModelConfig
from repetita.model.export import as_pretrained
from repetita.model.exported_tokenizer import exchange
from repetita.model.transformer import Transformer
from repetita.study.collect import collect
from repetita.study.elsewhere import RunElsewhere, open_elsewhere
from repetita.study.manifest import write_manifests
from repetita.study.prepare import Prepared
from repetita.study.single import train_run
from repetita.study.trainer_journal import journalled
from repetita.study.work import bring_to_end
from repetita.train.recipe import RunSpec
from tests.study.places import Place

DOCS = Path(__file__).parents[2] / "docs" / "elsewhere.md"
PROBE = ScoreProbe(on=("test", "repeated"), max_sequences=8, cadence=At(at=(5,)))


@pytest.fixture
def spec(place: Place) -> RunSpec:
    return spec_of(place)


def spec_of(place: Place) -> RunSpec:
    """The repeated arm of the tiny study, its model with one position more, trained elsewhere."""
    ours = place.portion().planned[2].spec
    return ours.edit(model=ours.model.edit(context=17), trainer="transformers")


def arguments(folder: Path, **changes: Any) -> Any:
    from transformers import TrainingArguments

    given: dict[str, Any] = {
        "max_steps": 12, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2,
        "train_sampling_strategy": "sequential", "logging_steps": 1, "save_steps": 5, "use_cpu": True,
        "report_to": "none", "disable_tqdm": True,
    }  # fmt: skip
    return TrainingArguments(output_dir=str(folder), **(given | changes))


def trainer(run: RunElsewhere, folder: Path, corpus: Any, **changes: Any) -> Any:
    """The Trainer with the weights, the optimizer and the rates that our loop would have."""
    from transformers import PrinterCallback, Trainer

    spec = run.spec
    assert isinstance(spec.model, ModelConfig)
    exchanged = exchange(corpus.tokenizer, config=spec.model)
    model = as_pretrained(Transformer(spec.model, seed=spec.seed), exchanged)
    recipe = spec.recipe
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1.0, betas=(recipe.beta1, recipe.beta2), eps=recipe.eps, weight_decay=0.0
    )
    rates = torch.optim.lr_scheduler.LambdaLR(optimizer, recipe.lr)
    made = Trainer(model, arguments(folder, **changes), optimizers=(optimizer, rates), **journalled(run))
    made.remove_callback(PrinterCallback)
    return made


def open_run(spec: RunSpec, place: Place) -> RunElsewhere:
    return open_elsewhere(spec, root=place.root, probes=[PROBE], versions={"transformers": "5"})


def corpus_of(spec: RunSpec, place: Place) -> Any:
    return open_corpus(spec.corpus, cache=place.root / "corpora")


def steps(path: Path) -> list[dict[str, Any]]:
    return [{**line, "seconds": 0} for line in read_journal(path, journal="steps")]


@pytest.fixture
def trained(place: Place, spec: RunSpec, tmp_path: Path) -> Path:
    with open_run(spec, place) as run:
        trainer(run, tmp_path / "trainer", corpus_of(spec, place)).train()
        return run.path


def test_the_trainer_makes_the_run_that_our_loop_makes(place: Place, spec: RunSpec, trained: Path) -> None:
    ours = train_run(spec.edit(trainer=None), root=place.root, probes=[PROBE]).path
    assert ours != trained and "-elsewhere-" in trained.name
    assert status(trained) == "done"
    verify(trained)
    mine, theirs = steps(ours), steps(trained)
    assert len(theirs) == 12
    for one, other in zip(mine, theirs, strict=True):
        assert one["tokens"] == other["tokens"] and one["sets"].keys() == other["sets"].keys()
        for name in ("learning_rate", "gradient_norm"):
            assert other[name] == pytest.approx(one[name], rel=1e-4)
        for lane, (loss, hits, n) in one["sets"].items():
            assert other["sets"][lane][0] == pytest.approx(loss, rel=1e-5)
            assert other["sets"][lane][1:] == [hits, n]
    both = table.measurements([ours, trained]).sort("run", "step", "metric", "on")
    here, there = (both.filter(path=str(path)).drop("run", "path", "detail") for path in (ours, trained))
    assert here.drop("value").equals(there.drop("value")), "one key, one step, one n"
    assert set(here["step"]) == {0, 5, 12}
    np.testing.assert_allclose(there["value"], here["value"], rtol=1e-4)
    head = read_header(trained)
    assert head["spec"]["trainer"] == "transformers" and head["versions"]["transformers"] == "5"
    assert head["exposure"] == read_header(ours)["exposure"]


def test_a_trainer_that_goes_on_writes_the_same_journal(
    place: Place, spec: RunSpec, trained: Path, tmp_path: Path
) -> None:
    from transformers import TrainerCallback

    class Stop(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 8:
                raise KeyboardInterrupt

    whole = steps(trained), list(read_journal(trained, journal="measurements"))
    trained.rename(tmp_path / "whole")
    corpus = corpus_of(spec, place)
    with open_run(spec, place) as run:
        first = trainer(run, tmp_path / "again", corpus)
        first.add_callback(Stop())
        with pytest.raises(KeyboardInterrupt):
            first.train()
    assert status(run.path) == "unfinished" and len(steps(run.path)) == 7
    with open_run(spec, place) as run:
        trainer(run, tmp_path / "again", corpus).train(resume_from_checkpoint=True)
    again = steps(run.path), list(read_journal(run.path, journal="measurements"))
    assert [line["step"] for line in again[0]] == list(range(12))
    assert again == whole
    kinds = [(line["kind"], line["step"]) for line in read_journal(run.path, journal="events")]
    assert kinds == [("resumed", 5)]
    verify(run.path)
    with pytest.raises(RunFolderError, match="is done; delete the folder"):
        open_run(spec, place)


@pytest.mark.slow
def test_two_processes_make_the_run_that_one_makes(
    place: Place, spec: RunSpec, trained: Path, tmp_path: Path
) -> None:
    whole = trained.rename(tmp_path / "whole")
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        "-m", "tests.study.trainer_ranks", place.study, place.root, tmp_path / "two",
    ]  # fmt: skip
    done = subprocess.run(
        list(map(str, command)), cwd=Path(__file__).parents[2], timeout=300, check=False,
        capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    (path,) = place.root.glob(f"runs/{trained.name}")
    assert status(path) == "done"
    verify(path)
    for one, other in zip(steps(whole), steps(path), strict=True):
        assert other["tokens"] == one["tokens"] and other["sets"].keys() == one["sets"].keys()
        assert other["gradient_norm"] == pytest.approx(one["gradient_norm"], rel=1e-4)
        for lane, (loss, hits, n) in one["sets"].items():
            assert other["sets"][lane][0] == pytest.approx(loss, rel=1e-4), "each slot in its lane"
            assert other["sets"][lane][1:] == [hits, n]
    both = [list(read_journal(run, journal="measurements")) for run in (whole, path)]
    for mine, theirs in zip(*both, strict=True):
        assert (theirs["step"], theirs["metric"], theirs["n"]) == (mine["step"], mine["metric"], mine["n"])
        assert (theirs["value"] is None) == (mine["value"] is None)
        assert theirs["value"] is None or theirs["value"] == pytest.approx(mine["value"], rel=1e-3)


def test_only_the_first_process_writes(place: Place, spec: RunSpec, tmp_path: Path) -> None:
    with open_elsewhere(spec, root=place.root, probes=[PROBE], rank=1) as run:
        assert not run.path.exists() and run.due == ()
        with pytest.raises(SpecError, match="process 0 of the Trainer opened the run as another one"):
            trainer(run, tmp_path / "trainer", corpus_of(spec, place)).train()
        run.begin()
        sums = np.stack([np.ones(4), np.zeros(4), run.rows.n_scored(0)], axis=1)
        run.record(sums, learning_rate=1, gradient_norm=1, seconds=0)
        assert run.step == 1
        run.commit()
        with pytest.raises(RunFolderError, match="it lacks 11 steps"):
            run.finish()
    assert not run.path.exists()


def test_what_is_not_finite_ends_the_journal(place: Place, spec: RunSpec) -> None:
    with open_run(spec, place) as run:
        run.begin()
        sums = np.stack([np.ones(4), np.zeros(4), run.rows.n_scored(0)], axis=1)
        with pytest.raises(TrainingDiverged, match="the gradient of step 0 is nan"):
            run.record(sums, learning_rate=1, gradient_norm=float("nan"), seconds=0)
        with pytest.raises(TrainingDiverged, match="the loss of step 0 is inf"):
            run.record(sums * [np.inf, 1, 1], learning_rate=1, gradient_norm=1, seconds=0)


def test_a_step_that_the_journal_does_not_reach(place: Place, spec: RunSpec) -> None:
    with open_run(spec, place) as run:
        with pytest.raises(SpecError, match="nothing was begun"):
            run.record(np.zeros((4, 3)), learning_rate=1, gradient_norm=1, seconds=0)
        run.begin()
        with pytest.raises(RunFolderError, match="ends after 0 steps and the trainer goes on from step 3"):
            run.begin(3)


def planned_elsewhere(place: Place) -> Prepared:
    """The tiny study with its repeated arm trained elsewhere."""
    place.edit(
        'spec=run(half), labels={"arm": "repeated"',
        'spec=run(half).edit(trainer="mine", model=MODEL.edit(context=17)), labels={"arm": "repeated"',
    )
    return place.prepared()


def test_a_study_finds_the_run_that_it_planned(place: Place, tmp_path: Path) -> None:
    prepared = planned_elsewhere(place)
    write_manifests(prepared, root=place.root)
    planned = place.portion().planned[2]
    job = next(job for job in prepared.needed() if job.spec == planned.spec)

    def bring() -> Any:
        return bring_to_end(job, jobs=prepared.jobs, corpora=prepared.corpora, root=place.root)

    with pytest.raises(RunFolderError, match="is not done, and it is 'mine' that trains it"):
        bring()
    with open_elsewhere(planned, root=place.root) as run:
        assert run.path == job.path
        trainer(run, tmp_path / "trainer", corpus_of(run.spec, place)).train()
    assert bring().trained_steps == 0
    assert job.fingerprint not in {one.fingerprint for one in place.prepared().needed()}
    found = collect(place.portion(), root=place.root)
    rows = found.where(arm="repeated", metric="memorized")
    assert rows["step"].to_list() == [0, 6, 12] and rows["on"].unique().to_list() == ["test"]
    assert {row["lane"] for row in found.steps.filter(arm="repeated").to_dicts()} == {"train", "repeated"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train_sampling_strategy": "random"}, "train_sampling_strategy = random"),
        ({"max_steps": 11}, "max_steps = 11, and the journal of this run needs 12"),
        ({"per_device_train_batch_size": 4}, r"gradient_accumulation_steps = 8, .* needs 4"),
        ({"logging_steps": 2}, "logging_steps = 2"),
        ({"ignore_data_skip": True}, "ignore_data_skip = True"),
        ({"accelerator_config": {"split_batches": True}}, "split_batches = True"),
    ],
)
def test_arguments_that_train_something_else_are_refused(
    place: Place, spec: RunSpec, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with open_run(spec, place) as run:
        with pytest.raises(SpecError, match=said):
            trainer(run, tmp_path / "trainer", corpus_of(spec, place), **changes).train()
        assert run.step < 0, "before anything is trained"


def test_rows_that_are_not_the_steps_are_noticed(
    place: Place, spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A slot of this arm is empty now and then, so that a shuffled step has another number of tokens.
    spec = spec.edit(treatment=RepeatedSubset(fraction="0.5", n_sequences=4, slots="empty"))
    with open_run(spec, place) as run:
        made = trainer(run, tmp_path / "trainer", corpus_of(spec, place))
        monkeypatch.setattr(made, "_get_train_sampler", lambda rows: RandomSampler(rows))
        with pytest.raises(SpecError, match="are not those that it reads"):
            made.train()


def test_a_run_that_names_no_trainer_is_ours(place: Place, spec: RunSpec) -> None:
    with pytest.raises(SpecError, match="names its trainer"):
        open_elsewhere(spec.edit(trainer=None), root=place.root)
    with pytest.raises(SpecError, match="start has no effect on a run that 'transformers' trains"):
        spec.edit(start={"run": spec.edit(trainer=None)})
    with open_elsewhere(spec, root=place.root, labels="next") as run:
        with pytest.raises(SpecError, match="labels = 'next' is not what models of transformers read"):
            journalled(run)
        run.begin()
        with pytest.raises(RunFolderError, match="it lacks 12 steps"):
            run.finish()


@pytest.fixture
def blocks() -> Iterator[str]:
    text = DOCS.read_text(encoding="utf-8")
    return iter(re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)[1:])


@pytest.mark.slow
@pytest.mark.ci
def test_what_the_page_shows_runs(
    blocks: Iterator[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)
    done = sorted(file.parent.name for file in Path("repetita-out/runs").glob("*/done"))
    assert len(done) == 2 and all("-elsewhere-" in name for name in done)
    for name in done:
        found = table.measurements([Path("repetita-out/runs") / name])
        assert set(found["on"]) == {"test", "repeated"} and set(found["step"]) >= {0, 12}
