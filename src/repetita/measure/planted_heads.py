"""Planted subjects whose attention heads do a known thing, and one whose loss is a known curve.

Shapes: B rows, L tokens, Y layers, H heads.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from repetita.errors import SpecError
from repetita.subject import Floats, Pattern, Patterns, Rows, Scores, Tokens

Kind = Literal["induction", "previous", "uniform", "start"]
"""What a head attends to: evenly to the tokens that followed earlier occurrences of the same token (to the
first token where there is none); the token before; all tokens so far evenly; the first token."""


class HeadsSubject:
    """Heads of known kinds, `kinds[layer][head]`, each of which copies what it attends to.

    A head adds to the logit of a token its attention to that token's occurrences, times its `copying`
    (1 for all unless given; negative: it lowers them). `worth` are nats by which single heads lower the loss,
    which is ln V without them, at every token: what `without` them is missed.
    """

    mask_id: ClassVar[int | None] = None

    def __init__(
        self,
        kinds: Sequence[Sequence[Kind]],
        *,
        vocab_size: int,
        copying: Mapping[tuple[int, int], float] | None = None,
        worth: Mapping[tuple[int, int], float] | None = None,
    ) -> None:
        self.kinds, self.vocab_size = kinds, vocab_size
        if len({len(layer) for layer in kinds}) != 1:
            raise SpecError("HeadsSubject: layers have as many heads as one another; give each layer as many")
        self.copying = np.ones((len(kinds), len(kinds[0])))
        for head, strength in (copying or {}).items():
            self.copying[head] = strength
        self.worth = dict(worth or {})

    def score(self, rows: Rows, /) -> Scores:
        """ln V less the worth of the heads at every scored position; never a hit."""
        loss = math.log(self.vocab_size) - sum(self.worth.values())
        return Scores(np.where(rows.scored, loss, 0).astype(np.float32), np.zeros_like(rows.scored))

    def attend(self, tokens: Tokens, /) -> Iterator[Pattern]:
        """See `Attending.attend`."""
        for layer in self.kinds:
            yield np.stack([_pattern(kind, tokens) for kind in layer], axis=1)

    def raises(self, tokens: Tokens, /) -> Iterator[Floats]:
        """See `Attributing.raises`: attention to all occurrences of a token, less the mean over V."""
        same_BLL = (tokens[:, :, None] == tokens[:, None, :]).astype(np.float32)
        for layer, pattern_BHLL in enumerate(self.attend(tokens)):
            read_BHLL = pattern_BHLL @ same_BLL[:, None] - 1 / self.vocab_size
            yield (read_BHLL * self.copying[layer, None, :, None, None]).astype(np.float32)

    def attribute(self, tokens: Tokens, targets: Tokens) -> Floats:
        """See `Attributing.attribute`: attention to the occurrences of the target, less the mean over V."""
        found = []
        same_BLL = (tokens[:, None, :] == targets[:, :, None]).astype(np.float32)
        for layer, pattern_BHLL in enumerate(self.attend(tokens)):
            read_BHL = (pattern_BHLL * same_BLL[:, None]).sum(-1) - 1 / self.vocab_size
            found.append((read_BHL * self.copying[layer, None, :, None]).transpose(1, 0, 2))
        return np.stack(found).astype(np.float32)

    def ov_copying(self) -> Floats:
        """The sign of each head's copying: its circuit is that times the identity."""
        return np.sign(self.copying).astype(np.float32)

    def k_composition(self) -> Floats:
        """1 from each induction head to each head of an earlier layer, as if it read its keys there."""
        induction_YH = np.array([[kind == "induction" for kind in layer] for layer in self.kinds])
        layers = np.arange(len(self.kinds))
        earlier_YY = layers[None, :] < layers[:, None]
        found = induction_YH[:, :, None, None] & earlier_YY[:, None, :, None]
        return np.broadcast_to(found, induction_YH.shape * 2).astype(np.float32)

    def without(
        self,
        heads: Iterable[tuple[int, int]],
        /,
        *,
        patterns: Patterns = "frozen",  # noqa: ARG002
    ) -> "HeadsSubject":
        """Their copying and their worth are gone; patterns do not depend on what heads write."""
        off = set(heads)
        copying = {(y, h): 0.0 if (y, h) in off else float(x) for (y, h), x in np.ndenumerate(self.copying)}
        worth = {head: nats for head, nats in self.worth.items() if head not in off}
        return HeadsSubject(self.kinds, vocab_size=self.vocab_size, copying=copying, worth=worth)


class CurveSubject:
    """Loss `curve[i]` nats at every scored token of index i; never a hit."""

    mask_id: ClassVar[int | None] = None

    def __init__(self, curve: ArrayLike) -> None:
        self.curve = np.asarray(curve, dtype=np.float64)

    def score(self, rows: Rows, /) -> Scores:
        """The curve, in each row."""
        loss_BL = np.where(rows.scored, self.curve[: rows.scored.shape[1]], 0)
        return Scores(loss_BL.astype(np.float32), np.zeros_like(rows.scored))


def _pattern(kind: Kind, tokens: Tokens) -> NDArray[np.float32]:
    """Attention of one head (B, L, L), rows sum to 1."""
    B, L = tokens.shape
    weight_BLL = np.zeros((B, L, L), dtype=np.float32)
    places = np.arange(L)
    if kind == "uniform":
        weight_BLL[:] = np.tril(np.ones((L, L)))
    elif kind == "previous":
        weight_BLL[:, places, np.maximum(places - 1, 0)] = 1
    elif kind == "induction":
        same_BLL = tokens[:, :, None] == tokens[:, None, :]
        earlier_LL = places[None, :] < places[:, None]
        # What followed place j is at j + 1, which a query at i may read from i = j + 1 on.
        weight_BLL[:, :, 1:] = (same_BLL & earlier_LL)[:, :, :-1]
    alone_BL = weight_BLL.sum(-1) == 0
    weight_BLL[:, :, 0] += alone_BL
    return np.asarray(weight_BLL / weight_BLL.sum(-1, keepdims=True))
