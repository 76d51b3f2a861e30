"""Matched, disjoint sets: train, test, special, twin, placebo, novel, units."""

from fractions import Fraction
from typing import Self

from pydantic import model_validator

from repetita.errors import SpecError
from repetita.spec import ExactFraction, Spec


class Splits(Spec):
    """Share of the documents that each set gets; what is left is `train`.

    `special` is text for special batches and insertions, `twin` is matched to it and never seen,
    `placebo` and `novel` are fresh text for those arms, `units` holds the documents, paragraphs or
    sentences of a repeated subset whose unit is not the sequence. `seed` redraws which documents go
    where.
    """

    test: ExactFraction = Fraction(1, 10)
    special: ExactFraction = Fraction(0)
    twin: ExactFraction = Fraction(0)
    placebo: ExactFraction = Fraction(0)
    novel: ExactFraction = Fraction(0)
    units: ExactFraction = Fraction(0)
    seed: int = 0

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name, share in self.shares().items():
            if not 0 <= share < 1:
                raise SpecError(f"Splits: {name} = {share} is outside [0, 1); give a share of the documents, such as 0.1")
        total = sum(self.shares().values())
        if total >= 1:
            raise SpecError(f"Splits: the shares add up to {total}, which leaves nothing for train; lower one")
        return self

    def shares(self) -> dict[str, Fraction]:
        """Share of each set but train, by name."""
        return {name: getattr(self, name) for name in ("test", "special", "twin", "placebo", "novel", "units")}
