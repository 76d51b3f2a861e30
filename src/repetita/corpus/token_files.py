"""The tokens of documents on disk as they are encoded, with the ends of sentences and paragraphs."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from repetita.corpus.encoding import Stretch, Task
from repetita.corpus.growing import GrowingFile

LENGTHS, TOKENS, SENTENCES, PARAGRAPHS = "lengths.bin", "tokens.bin", "sentences.bin", "paragraphs.bin"
TOKEN_FILES = (LENGTHS, TOKENS, SENTENCES, PARAGRAPHS)

BEGINNING: dict[str, Any] = {"encoded": 0, "unknown": 0, "lossless": True, "last": {}}
"""The state of files without anything in them."""


class TokenFiles:
    """Stretches, appended in their order; `state` is what the files do not say themselves."""

    def __init__(
        self,
        files: Mapping[str, GrowingFile],
        *,
        dtype: "np.dtype[Any]",
        state: Mapping[str, Any] = BEGINNING,
    ) -> None:
        self._files = files
        self.encoded: int = state["encoded"]
        """Bytes of the text that are encoded."""
        self.unknown: int = state["unknown"]
        self.lossless: bool = state["lossless"]
        self._last: dict[str, int] = dict(state["last"])
        lengths = np.fromfile(files[LENGTHS].path, "<i8")
        self.n_documents = len(lengths)
        self._itemsize = dtype.itemsize
        # What the tokens of whole documents leave is of the one that is being encoded in parts.
        self._position = files[TOKENS].bytes // self._itemsize
        self._partial = self._position - int(lengths.sum()) - len(lengths)

    @property
    def state(self) -> dict[str, Any]:
        """What goes on with these files must be told."""
        return {
            "encoded": self.encoded,
            "unknown": self.unknown,
            "lossless": self.lossless,
            "last": self._last,
        }

    @property
    def n_tokens(self) -> int:
        """Tokens of whole documents, without separators."""
        return self._position - self.n_documents

    def append(self, task: Task, stretch: Stretch, /) -> None:
        """Appends what a task came to; tasks come in order."""
        self._files[TOKENS].write(stretch.tokens)
        for name, ends in ((SENTENCES, stretch.sentence_ends), (PARAGRAPHS, stretch.paragraph_ends)):
            ends = ends + self._position
            # Two parts of a document may find the same end between them.
            ends = ends[ends > self._last.get(name, -1)]
            if ends.size:
                self._last[name] = int(ends[-1])
                self._files[name].write(ends.astype("<i8").tobytes())
        self._position += len(stretch.tokens) // self._itemsize
        lengths = stretch.n_tokens.astype("<i8")
        lengths[0] += self._partial
        self._partial = 0 if task.closes else int(lengths[0])
        if task.closes:
            self._files[LENGTHS].write(lengths.tobytes())
            self.n_documents += len(lengths)
        self.encoded = task.stop
        self.unknown += stretch.n_unknown
        self.lossless &= stretch.lossless
