"""What can be had before anything is trained: a corpus, and what a study would cost."""

import os
from pathlib import Path

from repetita.corpus.sequences import Corpus, CorpusSpec
from repetita.study.corpora import Corpora
from repetita.study.expected import plan_corpora
from repetita.study.prepare import bundle, prepare
from repetita.study.summary import Summary, summarise
from repetita.study.text import text_of


def build_corpus(spec: CorpusSpec, *, root: str | Path = "repetita-out") -> Corpus:
    """The corpus of a spec, built below `root` unless it is there.

    Its `sets` are sequences by name of the set, its `card` says where the text is from and how much it is,
    its `tokenizer` turns ids back into text. Raises CorpusError, DamagedError, StorageError.

    >>> import numpy as np
    >>> from repetita import CorpusSpec, TokenizerSpec, build_corpus
    >>> spec = CorpusSpec(
    ...     source="python-stdlib", limit_documents=40, tokenizer=TokenizerSpec(kind="bytes"), length=64
    ... )
    >>> corpus = build_corpus(spec)
    >>> sorted(corpus.sets)
    ['test', 'train']
    >>> rows = corpus.sets["test"].rows(np.arange(2))
    >>> rows.targets.shape
    (2, 64)
    >>> text = corpus.tokenizer.decode(rows.targets[0])
    """
    return Corpora(Path(root)).open(spec)


def plan_study(
    study: str | Path,
    *,
    scale: str | None = None,
    corpus: str | Path | None = None,
    text_field: str = "text",
    subset: str | None = None,
    text: str | Path | None = None,
    root: str | Path = "repetita-out",
    processes: int | None = None,
) -> Summary:
    """What a study or paper (a built-in name or the path of a file) would run and cost; trains nothing.

    Builds the corpora that are missing, since only they say how many tokens there are; of texts that a study
    states the size of nothing is fetched. `scale`, `corpus` and `processes` are as in `run_study`. Raises
    what `run_study` raises before it trains.

    >>> from repetita import plan_study
    >>> plan = plan_study("my_question.py", scale="tiny", processes=2)
    >>> plan.n_runs
    6
    >>> plan.training_tokens
    0
    """
    root = Path(root)
    given = text_of(corpus, text_field=text_field, subset=subset, passage=text)
    portions = bundle(study, scale=scale, text=given).portions
    prepared = prepare(portions, root=root, corpora=plan_corpora(portions, root=root))
    return summarise(prepared, processes=processes or os.cpu_count() or 1)
