"""How a text that is in no set is shown to a model: behind which token, and how much of it fits."""

import numpy as np
from numpy.typing import NDArray

from repetita.corpus.sequences import as_rows
from repetita.corpus.windows import Windows
from repetita.errors import SpecError
from repetita.measure.probe import Sequences
from repetita.subject import Mask, Rows

Ints = NDArray[np.int64]

START = 0
"""Start token, separator and padding of a corpus of ours."""


def start_token(sequences: Sequences, /) -> int:
    """The token that a text is shown behind; SpecError where texts are read by a rule that has none."""
    if not isinstance(sequences, Windows):
        return START
    if not sequences.reading.before:
        raise SpecError(
            "this probe shows texts behind a start token and the rule of reading has none; set bos to 'eos'"
        )
    return sequences.reading.before[0]


def alone(sequences: Sequences, ids: Ints, /) -> Rows:
    """Texts of equal length, ids (B, n), each behind the start token of a set; all are scored.

    But for id 0 where that is padding. Raises SpecError as `start_token` does.
    """
    rows = as_rows(ids)
    if not isinstance(sequences, Windows):
        return rows
    rows.tokens[:, 0] = start_token(sequences)
    return rows._replace(scored=np.ones(ids.shape, np.bool_))


def room(sequences: Sequences, /) -> int:
    """Tokens that fit behind the start token: those of a sequence, or of the window texts are read in."""
    return sequences.reading.window if isinstance(sequences, Windows) else sequences.length


def read_text(sequences: Sequences, rows: Rows, /) -> Mask:
    """Which tokens of rows of a causal model, their first left out, are text, shape (B, L - 1).

    Separators and padding are none; a token that is read as context only is text, too.
    """
    if isinstance(sequences, Windows):
        # The last target of a row is scored, and each target before it is read in the next place.
        return np.asarray(np.logical_or.accumulate(rows.scored[:, :0:-1], axis=1)[:, ::-1])
    return np.asarray(rows.tokens[:, 1:] != START)
