"""What is done to the data, as values.

Every treatment is an overlay on one order of the training pool: slot g of the control reads
sequence pi(g), pi a permutation keyed by the seed, and a treatment replaces what some slots read.
At zero strength nothing is replaced, so the treated run is the control bit for bit.
"""

from fractions import Fraction
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from repetita.corpus.bases import (
    Base,
    Part,
    Passes,
    RepeatedSubset,
    Stream,
    Unit,
    solve_repetition,
)
from repetita.errors import SpecError
from repetita.spec import ExactFraction, Spec, introduced

__all__ = [
    "Base",
    "Insertion",
    "Insertions",
    "Part",
    "Passes",
    "RepeatedSubset",
    "SpecialBatch",
    "Stream",
    "Treatment",
    "Unit",
    "solve_repetition",
    "steps_per_pass",
]


class SpecialBatch(Spec):
    """A set that is not in the training data is trained on at given steps (memorization paper, section 5).

    At an injection the batch of that step is `size` sequences of the special set alone, one update,
    and the base schedule pauses. `n_batches` disjoint special batches (batch b is sequences
    [b * size, (b + 1) * size) of the set, in the set's keyed order) are injected one after the other,
    each `times` times, `every` steps apart (1: in a row), `gap` steps from the last injection of one to
    the first of the next. With `batches = "interleaved"` all batches are injected in turn within each
    `every` steps instead: batch b comes b * every / n_batches steps after batch 0, rounded down, so that each
    is spaced like one alone and the run is no longer for it. `arm = "placebo"` does the same with never
    otherwise seen placebo text, and `arm = "twin"` with the twins, so that roles can be crossed over seeds.
    After the first injection the base goes on ("same") or fresh text of the set novel follows, read once.
    """

    kind: Literal["special_batch"] = "special_batch"
    base: Base
    size: PositiveInt
    at: int | None = Field(default=None, ge=0)
    """Step of the first injection (updates made before it)."""
    at_pass: ExactFraction | None = None
    """Instead of `at`: after this many passes of a base `Passes`."""
    n_batches: PositiveInt = 1
    times: PositiveInt = 1
    every: PositiveInt = 1
    gap: PositiveInt = 1
    arm: Literal["special", "twin", "placebo"] = "special"
    after: Literal["same", "novel"] = "same"
    part: Part = introduced("whole")
    batches: Literal["one_after_another", "interleaved"] = introduced("one_after_another")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.at is None) == (self.at_pass is None):
            raise SpecError("SpecialBatch: give either at (a step) or at_pass (a pass of the base), not both")
        if self.at_pass is not None and not isinstance(self.base, Passes):
            raise SpecError(
                f"SpecialBatch: at_pass needs base passes, not {self.base.kind}; give at (a step)"
            )
        if self.at_pass is not None and self.at_pass < 0:
            raise SpecError(f"SpecialBatch: at_pass = {self.at_pass} is below 0; passes are counted from 0")
        if self.batches == "interleaved" and self.n_batches > self.every:
            raise SpecError(
                f"SpecialBatch: {self.n_batches} interleaved batches do not fit into every = {self.every} "
                f"steps; raise every to at least {self.n_batches} or take fewer batches"
            )
        return self

    def settled(self, *, total: int, batch_size: int) -> Self:
        """The treatment with `at` as a step, its base settled, and unused spacings at 1.

        Raises SpecError when an injection lies outside the run.
        """
        steps = total // batch_size
        at = self.at
        if at is None:
            assert self.at_pass is not None
            assert isinstance(self.base, Passes)
            at = round(self.at_pass * self.base.n_sequences / batch_size)
        values: dict[str, object] = {name: getattr(self, name) for name in ("size", "arm", "after")}
        values |= {"at": at, "n_batches": self.n_batches, "times": self.times, "part": "whole"}
        nested = self.batches == "interleaved" and self.n_batches > 1
        values |= {"batches": "interleaved" if nested else "one_after_another"}
        values |= {"every": self.every if self.times > 1 or nested else 1}
        values |= {"gap": self.gap if self.n_batches > 1 and not nested else 1}
        placed = type(self)(base=self.base, **values)
        last = placed.injections()[-1][0]
        made = self.n_batches * self.times
        if last >= steps:
            if self.part == "whole":
                raise SpecError(
                    f"SpecialBatch: the injection at step {last} is outside the run of {steps} steps; inject "
                    f"earlier or lengthen the run to at least {last + 1}"
                )
            values["part"] = "beginning"
            made = sum(step < steps for step, _ in placed.injections())
        read = at if self.after == "novel" else steps - made
        base = self.base.settled(total=min(read, steps) * batch_size, batch_size=batch_size)
        return type(self)(base=base, **values)

    def injections(self) -> list[tuple[int, int]]:
        """(step, batch) of every injection, in order of steps; needs a settled `at`."""
        assert self.at is not None
        stride = (self.times - 1) * self.every + self.gap
        starts = [batch * stride for batch in range(self.n_batches)]
        if self.batches == "interleaved":
            starts = [batch * self.every // self.n_batches for batch in range(self.n_batches)]
        return sorted(
            (self.at + start + time * self.every, batch)
            for batch, start in enumerate(starts)
            for time in range(self.times)
        )

    def until(self, step: int) -> "Treatment":
        """The base alone when `step` is not after the first injection, else the injections before `step`."""
        assert self.at is not None
        if step <= self.at:
            return self.base.until(step)
        changes: dict[str, object] = {"base": self.base.until(step), "part": "beginning"}
        made = [batch for at, batch in self.injections() if at < step]
        # Where interleaved batches stand depends on how many they are, so their number stays.
        if self.batches == "one_after_another":
            changes["n_batches"] = begun = len(set(made))
        else:
            begun = 1
        if begun == 1:
            changes["times"] = made.count(0)
        return self.edit(**changes)


class Insertion(Spec):
    """One item of the set `special`, read `count` times at keyed slots of steps [start, stop)."""

    index: int = Field(ge=0)
    count: int = Field(ge=0)
    start: int = Field(default=0, ge=0)
    stop: int | None = None
    """End of the window; the end of the run when left out."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.stop is not None and self.stop <= self.start:
            raise SpecError(
                f"Insertion: the window [{self.start}, {self.stop}) of item {self.index} is empty; "
                f"stop must be after start"
            )
        return self


class Insertions(Spec):
    """Items with their own counts and windows of steps, each replacing one slot of the base.

    Items shorter than a sequence are written into the sequence that the slot would have read.
    The slots of an item do not depend on its count: the slots of 4 are among those of 16 (slots that two
    items draw go to the one named first).
    """

    kind: Literal["insertions"] = "insertions"
    base: Base
    items: tuple[Insertion, ...]
    part: Part = introduced("whole")

    def settled(self, *, total: int, batch_size: int) -> Self:
        """The treatment with its base and the ends of its windows settled.

        Raises SpecError when a window lies outside the run.
        """
        steps = total // batch_size
        items = tuple(item if item.stop is not None else item.edit(stop=steps) for item in self.items)
        late = [item for item in items if item.count and item.stop is not None and item.stop > steps]
        if late and self.part == "whole":
            raise SpecError(
                f"Insertions: the window [{late[0].start}, {late[0].stop}) of item {late[0].index} ends "
                f"after the run of {steps} steps; end it at {steps} or lengthen the run"
            )
        return type(self)(
            base=self.base.settled(total=total, batch_size=batch_size),
            items=items,
            part="beginning" if late else "whole",
        )

    def until(self, step: int) -> "Treatment":
        """The base alone when no window starts before `step`."""
        if all(item.count == 0 or item.start >= step for item in self.items):
            return self.base.until(step)
        return self.edit(base=self.base.until(step), part="beginning")


Treatment = Annotated[
    Stream | Passes | RepeatedSubset | SpecialBatch | Insertions, Field(discriminator="kind")
]


def steps_per_pass(treatment: Treatment, *, batch_size: int) -> Fraction | None:
    """Steps in one pass over the repeated set of a settled treatment, pauses left out; None for a stream.

    Of a subset that is re-read in a window of steps it is a pass inside the window.
    """
    if isinstance(treatment, SpecialBatch | Insertions):
        return steps_per_pass(treatment.base, batch_size=batch_size)
    if isinstance(treatment, Passes):
        return Fraction(treatment.n_sequences, batch_size)
    if isinstance(treatment, RepeatedSubset):
        assert treatment.fraction is not None
        assert treatment.n_sequences is not None
        return treatment.n_sequences / treatment.fraction / batch_size
    return None
