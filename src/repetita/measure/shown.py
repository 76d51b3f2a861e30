"""How a text that is in no set is shown to a model: behind which token, and how much of it fits.

Shapes: B rows of a batch, L tokens of a row, N texts of n tokens.
"""

import numpy as np
from numpy.typing import NDArray

from repetita.corpus.windows import Windows
from repetita.errors import SpecError
from repetita.measure.probe import Sequences
from repetita.subject import Mask, Rows, Tokens

Ints = NDArray[np.int64]

START = 0
"""Start token, separator and padding of a corpus of ours."""


def start_of(sequences: Sequences, /) -> int | None:
    """The token that a causal model reads before a text of this set; None where its rule has none."""
    if not isinstance(sequences, Windows):
        return START
    return sequences.reading.before[0] if sequences.reading.before else None


def start_token(sequences: Sequences, /) -> int:
    """The same; SpecError where texts are read by a rule that has none."""
    start = start_of(sequences)
    if start is None:
        raise SpecError(
            "this probe shows texts behind a start token and the rule of reading has none; set bos to 'eos'"
        )
    return start


def room(sequences: Sequences, /) -> int:
    """The most tokens of a text that are read, or asked for behind what is read, in one context.

    As many as a sequence of the set, or the window that texts are read in, has; one more where no start token
    takes a place in it.
    """
    if isinstance(sequences, Windows):
        return sequences.reading.window + (start_of(sequences) is None)
    return sequences.length


def read_before(text_Nn: Tokens, /, *, start: int | None) -> Tokens:
    """What a model reads of a text: the text behind its start token, where there is one."""
    if start is None:
        return text_Nn
    return np.concatenate([np.full((len(text_Nn), 1), start, text_Nn.dtype), text_Nn], axis=1)


def suffix_rows(text_Nn: Tokens, /, *, prompt: int, start: int | None) -> Rows:
    """Rows whose last n - `prompt` targets, and no others, are asked for; without a start token a prompt has
    a token at least."""
    read_NL = read_before(text_Nn, start=start)
    tokens, targets = read_NL[:, :-1], read_NL[:, 1:]
    scored = np.zeros(targets.shape, dtype=bool)
    scored[:, targets.shape[1] - (text_Nn.shape[1] - prompt) :] = True
    return Rows(tokens, targets, scored)


def alone(sequences: Sequences, ids: Ints, /) -> Rows:
    """Texts of equal length, ids (N, n), each behind the start token of a set; all are scored.

    But for id 0 where that is padding. Raises SpecError as `start_token` does.
    """
    rows = suffix_rows(ids, prompt=0, start=start_token(sequences))
    return rows if isinstance(sequences, Windows) else rows._replace(scored=ids != START)


def read_text(sequences: Sequences, rows: Rows, /) -> Mask:
    """Which tokens of rows of a causal model, their first left out, are text, shape (B, L - 1).

    Separators and padding are none; a token that is read as context only is text, too.
    """
    if isinstance(sequences, Windows):
        # The last target of a row is scored, and each target before it is read in the next place.
        return np.asarray(np.logical_or.accumulate(rows.scored[:, :0:-1], axis=1)[:, ::-1])
    return np.asarray(rows.tokens[:, 1:] != START)
