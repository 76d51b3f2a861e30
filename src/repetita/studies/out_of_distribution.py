"""Does repeated data cost more on text of another kind? Code, French, other English (Fig. 10)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from repetita.cadence import At
from repetita.corpus.sequences import CorpusSpec
from repetita.corpus.synthetic import SyntheticSpec
from repetita.measure.memorization import ScoreProbe
from repetita.report.page import Deviation
from repetita.studies import _damage_runs as runs
from repetita.studies import _repeated_scale as scale
from repetita.studies._grid import main_corpus, standard
from repetita.studies._laptop import SOTU, SYNTHETIC
from repetita.study.expand import labels_of
from repetita.study.plan import Analysis, Expected, PlannedRun, Study

if TYPE_CHECKING:
    from repetita.study.collect import Collected

Others = Mapping[str, CorpusSpec]
"""Texts that the models are not trained on, by the name of their probe; the first has the headline."""

SEQUENCES = 800
"""Of the first of the other texts, as many as of the own test text; of the rest half of it."""


def _others(like: CorpusSpec, **sources: str) -> dict[str, CorpusSpec]:
    """Built-in texts with the ids of a corpus, in sequences of its length."""
    return {
        name: CorpusSpec(source=source, length=like.length).with_ids_of(like)
        for name, source in sources.items()
    }


SPEECHES = _others(SOTU, encyclopedia="wikipedia-en", code="python-stdlib", french="wikipedia-fr")
"""For models of speeches: English of another kind, and two texts that share hardly a word with it."""

ENCYCLOPEDIA = _others(scale.GPU_TEXT, speeches="sotu", code="python-stdlib", french="wikipedia-fr")
ENCYCLOPEDIA_POOLS = {
    "speeches": {"train": 4_900, "test": 540},
    "code": {"train": 6_400, "test": 710},
    "french": {"train": 2_500, "test": 280},
}
"""Sequences of each set, from assumed bytes a token (4.4, 3.3, 2.6): for planning without the runs' text."""

FRENCH = CorpusSpec(
    source="hf:HuggingFaceFW/fineweb-2",
    subset="fra_Latn",
    limit_documents=200_000,
    tokenizer=scale.GPT2,
    length=scale.CONTEXT,
)
WEB: Others = {"code": scale.CODE, "french": FRENCH}
"""For models of web text: the paper's Python, and a second language."""
FRENCH_POOLS = {"train": 22_000, "test": 2_400}
"""200,000 documents of an assumed 1,000 tokens."""

EXPECTED = (
    *scale.EXPECTED,
    Expected(FRENCH, FRENCH_POOLS),
    *(Expected(spec, ENCYCLOPEDIA_POOLS[name]) for name, spec in ENCYCLOPEDIA.items()),
)


def planned(given: Iterable[PlannedRun], *, others: Others, sequences: int) -> Iterator[PlannedRun]:
    """The runs of the main corpus at the standard rate, which read the other texts at their end as well.

    `sequences` is how many of the first of them, half as many of each of the rest.
    """
    listed = list(given)
    labels = [labels_of(run) for run in listed]
    wanted = [dict(one) for one in standard(labels)]
    probes = tuple(
        ScoreProbe(
            name=name,
            on=("test",),
            max_sequences=sequences // (2 if place else 1),
            cadence=At(at=()),
            corpus=spec,
        )
        for place, (name, spec) in enumerate(others.items())
    )
    for run, own in zip(listed, labels, strict=True):
        if own in wanted:
            told = {**run.labels, "texts": ", ".join(others)}
            yield run._replace(labels=told, probes=(*run.probes, *probes))


def tiny() -> Sequence[PlannedRun]:
    """Seconds of work on synthetic bytes, for tests: every arm, one seed, no science."""
    few = (("repeated", "1.9k"), ("starved", "1.9k"))
    words = SYNTHETIC.edit(synthetic=SyntheticSpec(seed=7, vocabulary=200, exponent=0.5))
    code = SYNTHETIC.edit(source="python-stdlib", limit_documents=20)
    some = [
        run
        for run in runs.tiny()
        if run.spec.seed == 0 and (run.labels["arm"], run.labels["size"]) not in few
    ]
    return tuple(planned(some, others={"words": words, "code": code}, sequences=16))


def laptop() -> Sequence[PlannedRun]:
    """The runs of `double_descent`, and two more seeds at 25k and a tenth, at the passes around its peak."""
    more = runs.Cell("repeated", "25k", runs.TENTH, runs.TENTH_SUBSETS[2:4], seeds=(1, 2))
    return (
        *planned(runs.laptop(), others=SPEECHES, sequences=SEQUENCES),
        *planned(runs.planned(runs.laptop_design((more,))), others=SPEECHES, sequences=SEQUENCES),
    )


def overnight() -> Sequence[PlannedRun]:
    """The speeches' part of `double_descent` overnight: three sizes, three seeds."""
    return tuple(planned(runs.overnight(), others=SPEECHES, sequences=SEQUENCES))


def gpu() -> Sequence[PlannedRun]:
    """The runs of `double_descent` on a GPU, which are trained on an encyclopedia."""
    return tuple(planned(runs.gpu(), others=ENCYCLOPEDIA, sequences=SEQUENCES))


def paper() -> Sequence[PlannedRun]:
    """The paper's models of text, read on Python and on French."""
    return tuple(planned(runs.paper(), others=WEB, sequences=scale.TEST_SEQUENCES))


def analyse(collected: "Collected") -> Analysis:
    """Claims on what other texts cost beyond the own one, figures and tables."""
    from repetita.fit.claim import settle
    from repetita.studies import _other_texts, _other_texts_claims, _other_texts_figures
    from repetita.studies._grid import planned_labels

    if collected.measurements.is_empty():
        return Analysis(warnings=("no run is finished yet",))
    there = _other_texts.texts(collected.measurements, planned=planned_labels(collected))
    if there is None:
        return Analysis(warnings=("no repeated run is finished yet, or too few controls",))
    if not there.others:
        return Analysis(warnings=("no other text was read: the runs are trained on it",))
    unfit = [f"No effective sizes on {one.title}: {one.unfit}." for one in there.others if one.unfit]
    return Analysis(
        claims=settle(list(_other_texts_claims.claims(there))),
        figures=tuple(_other_texts_figures.figures(there)),
        tables=tuple(_other_texts_figures.tables(there)),
        warnings=tuple(unfit),
    )


def detectable(scale_name: str) -> Mapping[str, str]:
    """For each primary claim of a scale the smallest effect that its seeds can show, in words."""
    from repetita.studies._other_texts_claims import detectable as smallest

    return smallest([labels_of(run) for run in SCALES[scale_name]()])


def deviations(scale_name: str) -> Sequence[Deviation]:
    """The paper's value and ours, parameter by parameter."""
    planned_runs = SCALES[scale_name]()
    tokens = SEQUENCES * planned_runs[0].spec.corpus.length
    labels = [labels_of(run) for run in planned_runs]
    names = str(labels[0]["texts"]).split(", ")
    shares = sorted(
        {float(one["fraction"]) for one in labels if one["arm"] == "repeated" and one["fraction"]}
    )
    why = ""
    if scale_name in ("laptop", "overnight"):
        why = (
            "chosen on 27 controls alone: models of speeches give Python and French about the loss of a "
            "uniform guess (6.3 to 7.4 nats at the treated sizes; ln V = 6.93), seeds differ there by 0.1 to "
            "0.2 nats, and hardly a size can be read"
        )
    return (
        Deviation("trained on", "web text and books, with code in it", main_corpus(labels), "speed"),
        Deviation("other text of the headline", "Python", names[0], why or "a graded shift"),
        Deviation("other texts beside it", "none", ", ".join(names[1:]) or "none", "a graded shift"),
        Deviation("tokenizer", "GPT-2's, of web text with code", "that of the runs' own text", "one model"),
        Deviation(
            "multiplier", "law of the controls on that text inverted, over N",
            "read between the controls on that text, over that of the control of the same size and seed; the "
            "law's beside it", "the law misses the controls, and seeds differ on text far from their own",
        ),
        Deviation(
            "passes", "not stated", "the worst on the own test text, of those that most seeds have",
            "no choice on the other text",
        ),
        Deviation(
            "shares f", "1% to 90%", ", ".join(f"{share:g}" for share in shares),
            "the runs of `double_descent`",
        ),
        Deviation(
            "headline", "0.84 at f = 0.5 and 0.75 at 0.9, little at 0.1 and below", "f nearest to 0.5 "
            "against f nearest to 0.1", "at 0.9 the worst runs lie outside the ladder of controls",
        ),
        Deviation(
            "tokens of each text", "not stated",
            f"{tokens:,} of the first, {tokens // 2:,} of the others, or all", "speed",
        ),
        Deviation("control of missing data", "none", "empty repeated slots, read on the same texts",
                  "an extra that missing data explains is not re-reading's"),
    )  # fmt: skip


SCALES = {"tiny": tiny, "laptop": laptop, "overnight": overnight, "gpu": gpu, "paper": paper}

STUDY = Study(
    name="out_of_distribution",
    title="Repeated data and text of another kind",
    question="Models that read a share of their data many times get worse at unseen text of the same kind. "
    "Do they get worse still at text of another kind than at that?",
    prediction="Measured by effective size, text of another kind is hit as hard as the test text where a "
    "tenth of the data or less is repeated, and harder at high shares: the multiplier is 0.84 of that on the "
    "test text at f = 0.5 and 0.75 of it at f = 0.9, at all sizes.",
    source="Hernandez et al. 2022, Learning from Repeated Data, Fig. 10",
    scales=SCALES,
    analyse=analyse,
    deviations=deviations,
    detectable=detectable,
    expected=EXPECTED,
)
