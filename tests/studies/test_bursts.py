"""The bursty corpus suits what is measured on it: words are tokens, samples and passages fit, readings are
sane."""

import numpy as np
import pytest

from repetita.corpus.sequences import SequenceSet, open_corpus
from repetita.corpus.synthetic import SyntheticSpec, lexicon
from repetita.journal.records import Reading
from repetita.measure.copying import CopyingProbe
from repetita.measure.induction import InductionProbe, prefix_targets, random_tokens
from repetita.measure.names import NamesProbe
from repetita.measure.planted_heads import HeadsSubject
from repetita.measure.probe import EvalSet, PassProbe
from repetita.model.live import LiveSubject
from repetita.model.transformer import Transformer
from repetita.studies import _bursts
from repetita.studies.attention_only import STUDY as ATTENTION_ONLY
from repetita.studies.copying import STUDY as COPYING
from repetita.studies.induction_heads import STUDY as HEADS
from repetita.study.plan import PlannedRun, Study
from repetita.subject import Subject

pytestmark = [pytest.mark.slow, pytest.mark.ci]

N_WORDS = 64


@pytest.fixture(scope="module")
def sequences(tmp_path_factory: pytest.TempPathFactory) -> SequenceSet:
    """The test set of a corpus of fewer documents, the same in all else."""
    spec = _bursts.BURSTS
    assert spec.synthetic is not None
    few = spec.edit(synthetic=spec.synthetic.edit(n_documents=150))
    return open_corpus(few, cache=tmp_path_factory.mktemp("bursts")).sets["test"]


def bursts(study: Study, scale: str = "laptop") -> PlannedRun:
    """A run of the study on the bursts."""
    return next(run for run in study.runs(scale) if run.spec.corpus == _bursts.BURSTS)


def read(
    probe_of: type[PassProbe], study: Study, *, subject: Subject, sequences: SequenceSet
) -> dict[str, Reading]:
    """By metric and what was shown, what the study's own probe reads."""
    sets = {"test": EvalSet.whole("test", sequences=sequences)}
    probe = next(one for one in bursts(study).probes if isinstance(one, probe_of))
    return {f"{one.metric} {one.on}": one for one in probe.measure(subject, sets)}


def untrained() -> LiveSubject:
    return LiveSubject(Transformer(_bursts.config("34k"), seed=0))


def planted() -> HeadsSubject:
    return HeadsSubject([["previous"], ["induction"]], vocab_size=_bursts.BURSTS.tokenizer.vocab_size)


def value(found: dict[str, Reading], name: str) -> float:
    reading = found[name].value
    assert reading is not None
    return reading


def test_every_word_is_one_token(sequences: SequenceSet) -> None:
    words = [sequences.encode(f" {word}") for word in lexicon(N_WORDS)]
    assert all(len(ids) == 1 for ids in words)
    counts = sequences.token_counts()
    ids = {int(one[0]) for one in words}
    # The rest are first words of documents, which have no space before them.
    assert counts[sorted(ids)].sum() > 0.99 * counts[1:].sum()


def test_random_tokens_are_words_and_their_copies_lie_at_lags_of_the_text(sequences: SequenceSet) -> None:
    over = EvalSet.whole("test", sequences=sequences)
    ids = {int(sequences.encode(f" {word}")[0]) for word in lexicon(N_WORDS)}
    spec = _bursts.BURSTS.synthetic
    assert isinstance(spec, SyntheticSpec)
    for study in (HEADS, ATTENTION_ONLY):
        probe = next(one for one in bursts(study).probes if isinstance(one, InductionProbe))
        assert 1 + probe.n_tokens * probe.n_copies <= sequences.length
        drawn = random_tokens(
            over, n_tokens=probe.n_tokens, n_samples=probe.n_samples, excluded=float(probe.excluded)
        )
        assert set(drawn.ravel().tolist()) <= ids
        lags = {k * probe.n_tokens for k in range(1, probe.n_copies)}
        assert lags <= set(spec.lags)


def test_planted_heads_have_their_scores(sequences: SequenceSet) -> None:
    found = read(InductionProbe, HEADS, subject=planted(), sequences=sequences)
    assert value(found, "prefix_query_max test") == pytest.approx(1.0, abs=1e-5)
    assert value(found, "prefix_entry_max test") == pytest.approx(0.5, abs=1e-5)
    assert value(found, "previous_token_max test") == pytest.approx(1.0, abs=1e-5)
    assert value(found, "induction_ov test") == 1.0


def test_an_untrained_model_has_the_scores_of_even_attention(sequences: SequenceSet) -> None:
    found = read(InductionProbe, HEADS, subject=untrained(), sequences=sequences)
    probe = next(one for one in bursts(HEADS).probes if isinstance(one, InductionProbe))
    target = prefix_targets(probe.n_tokens, n_copies=probe.n_copies)
    even = (target.sum(1) / np.arange(1, len(target) + 1))[target.any(1)].mean()
    assert value(found, "prefix_query_max test") == pytest.approx(even, abs=0.03)
    assert value(found, "previous_token_max test") < 0.15
    assert abs(value(found, "ov_eigen_max test")) <= 1
    copied = read(CopyingProbe, COPYING, subject=untrained(), sequences=sequences)
    for name in ("long", "short", "random"):
        assert value(copied, f"copying_loss {name}") == pytest.approx(np.log(480), abs=0.5)
        assert abs(value(copied, f"copy_gain {name}")) < 0.1


def test_the_passages_are_whole_words_as_often_as_is_said(sequences: SequenceSet) -> None:
    found = read(CopyingProbe, COPYING, subject=planted(), sequences=sequences)
    shown = {name: found[f"copying_loss {name}"].detail for name in ("long", "short", "random")}
    sizes = {name: (one["tokens_per_copy"], one["copies"]) for name, one in shown.items() if one is not None}
    assert sizes == {"long": (21, 3), "short": (8, 8), "random": (16, 4)}
    names = read(NamesProbe, ATTENTION_ONLY, subject=untrained(), sequences=sequences)
    detail = names["passage_loss stretches"].detail
    assert detail is not None and detail["shown"] == detail["of"] <= sequences.length
    # Two stretches of four words: three tokens of each go on with it, twice.
    assert names["name_probability_exact stretches"].n == 12
