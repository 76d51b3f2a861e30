"""One run without a study: trained and measured, or measured at one of its checkpoints."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from repetita.cadence import Cadence
from repetita.corpus.documents import is_named
from repetita.corpus.places import public_corpus
from repetita.errors import RunFolderError, SpecError, nearest
from repetita.journal.folder import read_header, read_journal, status
from repetita.journal.storage import Storage
from repetita.measure.memorization import ScoreProbe
from repetita.measure.probe import Probe
from repetita.model.checkpoint import steps_on_disk
from repetita.model.live import checkpoint_subject
from repetita.model.pretrained_spec import PretrainedModel
from repetita.spec import canonical_json
from repetita.study.corpora import Corpora, Say, quiet
from repetita.study.expand import Job, corpora_of, expand, in_run
from repetita.study.plan import PlannedRun
from repetita.study.prepare import needed
from repetita.study.price import job_state
from repetita.study.stored import Kept
from repetita.study.work import bring_to_end
from repetita.train.loop import Options
from repetita.train.recipe import RunSpec, ancestry, with_corpora

DEFAULT_SEQUENCES = 256
"""Sequences of each set that `train_run` measures on, unless it is given probes."""


class Trained(NamedTuple):
    """A run that was brought to its end."""

    path: Path
    trained_steps: int
    """Steps that this call trained; 0 where the run was done before."""
    last: list[dict[str, Any]]
    """The measurements of the last step."""


def train_run(
    spec: RunSpec,
    *,
    root: str | Path = "repetita-out",
    probes: Sequence[Probe] | None = None,
    keep: Cadence | None = None,
    options: Options | None = None,
    storage: str | None = None,
    say: Say = quiet,
) -> Trained:
    """Brings one run to its end in this process, building its corpus when that is missing.

    `keep`: the steps whose weights are kept as checkpoints (default: the last alone).

    `storage` is a URL such as s3://BUCKET/FOLDER: the run goes on from what is kept there, whatever machine
    pushed it, and is pushed at its checkpoints and its end.

    A run that it starts from is trained first, as far as it is needed. Without `probes`, loss and M(f) are
    measured on the test set and on what the run repeats. Raises what `train.loop.train` raises.

    >>> from repetita import CorpusSpec, Passes, Recipe, RunSpec, TokenizerSpec, ladder, train_run
    >>> text = CorpusSpec(
    ...     source="python-stdlib", limit_documents=40, tokenizer=TokenizerSpec(kind="bytes"), length=32
    ... )
    >>> spec = RunSpec(
    ...     corpus=text,
    ...     model=ladder("laptop", vocab_size=257, context=32)["3.8k"],
    ...     treatment=Passes(n_sequences=8),
    ...     recipe=Recipe(learning_rate=0.01, warmup_steps=2),
    ...     steps=4,
    ...     batch_size=4,
    ... )
    >>> trained = train_run(spec)
    >>> [(row["metric"], row["on"]) for row in trained.last if row["metric"] == "memorized"]
    [('memorized', 'test')]
    """
    root = Path(root)
    corpora = Corpora(root, say=say)
    kept = Kept(Storage.open(storage) if storage else None, root=root)
    kept.bring(dict.fromkeys(run.corpus for run in ancestry(spec)), corpora=corpora)
    corpora.check_start(spec)
    _check_weights(spec, root=root)
    if probes is None:
        there = corpora.sets(spec)
        on = tuple(name for name in ("test", "repeated") if name in there) or ("train",)
        probes = (ScoreProbe(on=on, max_sequences=DEFAULT_SEQUENCES),)
    planned = PlannedRun(spec=spec, labels={}, probes=tuple(probes), keep=keep)
    jobs = {job.fingerprint: job for job in expand([planned], root=root, corpora=corpora.fingerprint)}
    kept.keep(corpora_of([planned]), corpora=corpora)
    kept.fetch([job.path for job in jobs.values()])
    for job in needed(jobs, states={name: job_state(job) for name, job in jobs.items()}):
        if not job.arms:
            bring_to_end(job, jobs=jobs, corpora=corpora, root=root, options=options, storage=kept.storage)
    job = next(job for job in jobs.values() if job.arms)
    outcome = bring_to_end(job, jobs=jobs, corpora=corpora, root=root, options=options, storage=kept.storage)
    return Trained(outcome.path, outcome.trained_steps, _last(job))


def _last(job: Job) -> list[dict[str, Any]]:
    """What the probes of a job measured at its last step."""
    names = {due.key: due.probe.name for due in job.probes}
    return [
        {"probe": names[line["probe"]]}
        | {name: line[name] for name in ("step", "metric", "on", "value", "n")}
        for line in read_journal(job.path, journal="measurements")
        if line["step"] == job.spec.steps and line["probe"] in names
    ]


def _check_weights(spec: RunSpec, *, root: Path) -> None:
    """Raises RunFolderError where the run was begun from other weights of the same name and is not done."""
    ours, hash_now = _but_weights(spec), getattr(spec.model, "sha256", None)
    for file in root.glob("runs/*/run.json") if ours else ():
        header = read_header(file.parent)
        theirs = header["spec"]
        if "sha256" not in theirs["model"] or status(file.parent) == "done":
            continue
        other = RunSpec.from_json(canonical_json(theirs))
        if _but_weights(other) == ours and theirs["model"]["sha256"] != hash_now:
            raise RunFolderError(
                f"{file.parent} was begun from other weights of {theirs['model']['source']} and is not done; "
                f"put those back to go on with it, or delete the folder to begin again"
            )


def _but_weights(spec: RunSpec) -> dict[str, Any] | None:
    """A run of somebody else's model without the hash of its weights; None for other runs."""
    if not isinstance(spec.model, PretrainedModel):
        return None
    values = with_corpora(spec, shown=public_corpus)
    del values["model"]["sha256"]
    return values


def measure_run(
    path: str | Path,
    *,
    root: str | Path = "repetita-out",
    on: Sequence[str] = ("test",),
    step: int | None = None,
    max_sequences: int | None = None,
    source: str | None = None,
    say: Say = quiet,
) -> list[dict[str, Any]]:
    """Loss, bits a byte and M(f) of a kept checkpoint (default: the last) on sets of the run's corpus.

    Writes nothing into the run. The corpus is the one below `root` that the run was trained on; where it is
    gone, `source` says where its text lies (a run keeps no paths). Raises RunFolderError where there is no
    such run or checkpoint, and SpecError for a set that the run lacks or a text that is not the run's.

    >>> from pathlib import Path
    >>> from repetita import measure_run
    >>> run = next(Path("repetita-out/runs").glob("*-repeated_subset-s0-*"))
    >>> rows = measure_run(run, on=("test", "repeated"), max_sequences=8)
    >>> sorted({row["on"] for row in rows})
    ['repeated', 'test']
    """
    path, corpora = Path(path), Corpora(Path(root), say=say)
    spec = open_run(path, corpora=corpora, source=source)
    taken = max(steps_on_disk(path), default=0) if step is None else step
    subject = checkpoint_subject(path, step=taken)
    probe = in_run(ScoreProbe(on=tuple(on), max_sequences=max_sequences), spec=spec)
    return [
        {"step": taken, "metric": reading.metric, "on": reading.on, "value": reading.value, "n": reading.n}
        for reading in probe.measure(subject, sets=corpora.sets(spec))
        if reading.value is not None
    ]


def open_run(path: Path, *, corpora: Corpora, source: str | None) -> RunSpec:
    """The spec of the run in a folder, its very corpus opened in `corpora` and compared with its hashes.

    Raises RunFolderError where there is no run, and SpecError where its text is not to be found.
    """
    if status(path) == "missing":
        names = [file.parent.name for file in path.parent.glob("*/run.json")]
        raise RunFolderError(f"{path} is no run; {nearest(path.name, names)}")
    header = read_header(path)
    spec = RunSpec.from_json(canonical_json(header["spec"]))
    if source is not None:
        spec = spec.edit(corpus=spec.corpus.edit(source=source))
    _open_corpus(spec, corpora=corpora, fingerprint=header["corpus"], run=path.name)
    return spec


def _open_corpus(spec: RunSpec, *, corpora: Corpora, fingerprint: str, run: str) -> None:
    """Opens the very corpus that a run was trained on and compares it with its hashes."""
    if corpora.find(spec.corpus, fingerprint=fingerprint) is None:
        source = spec.corpus.source
        if not (is_named(source) or Path(source).expanduser().exists()):
            raise SpecError(
                f"the text '{source}' that {run} was trained on is not here; say where it lies with --source"
            )
        if corpora.fingerprint(spec.corpus) != fingerprint:
            raise SpecError(
                f"the text of '{source}' is not the one that {run} was trained on; say where that lies with "
                f"--source"
            )
    corpora.verify()
