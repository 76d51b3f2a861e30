"""The tokenizer of a corpus that is trained on the corpus itself, or on a keyed choice of its documents."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from repetita import seeds
from repetita.corpus.catalogue import open_catalogue
from repetita.corpus.tokenizer import Tokenizer, TokenizerSpec, load_tokenizer, train_tokenizer
from repetita.journal.disk import write_atomic

TRAINING_BYTES = 64 << 20
"""A tokenizer is trained on documents of at most so many bytes, by a keyed choice where there are more."""

TEXT = "text.tmp"
"""The documents' text, one after the other, in the folder of their catalogue."""


def trained_tokenizer(
    spec: TokenizerSpec, *, folders: Sequence[Path], kept: Path, progress: Callable[[str, float], None]
) -> Tokenizer:
    """The tokenizer of the text of folders with laid-out text; `kept` is its file, read where it is there."""
    if kept.exists():
        return load_tokenizer(kept.read_text(encoding="utf-8"))
    progress("training the tokenizer", 0.0)
    tokenizer = train_tokenizer(spec, texts=training_texts(folders))
    progress("training the tokenizer", 1.0)
    write_atomic(kept, tokenizer.to_json().encode())
    return tokenizer


def training_texts(folders: Sequence[Path]) -> Iterator[str]:
    """All documents, or a keyed choice of them up to TRAINING_BYTES, in their order."""
    of_folder = [open_catalogue(folder).n_bytes for folder in folders]
    sizes = np.concatenate([np.zeros(0, dtype=np.int64), *of_folder])
    firsts = np.cumsum([0, *map(len, of_folder)])
    starts, n = np.concatenate([[0], np.cumsum(sizes)]), len(sizes)
    chosen = np.arange(n)
    if starts[-1] > TRAINING_BYTES:
        order = seeds.Permutation(n, seeds.key(0, "tokenizer"))(chosen)
        n_chosen = 1 + int(np.searchsorted(np.cumsum(sizes[order]), TRAINING_BYTES))
        chosen = np.sort(order[:n_chosen])
    left = TRAINING_BYTES
    for number, folder in enumerate(folders):
        first, last = firsts[number], firsts[number + 1]
        here = chosen[np.searchsorted(chosen, first) : np.searchsorted(chosen, last)]
        if not len(here):
            continue
        with (folder / TEXT).open("rb") as file:
            for document in here.tolist():
                file.seek(int(starts[document] - starts[first]))
                # A cut at the limit may split a character, which is then left out.
                size = min(left, int(sizes[document]))
                left -= size
                yield file.read(size).decode("utf-8", errors="ignore")
