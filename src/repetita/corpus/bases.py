"""What a run reads when nothing comes from outside: a stream, passes over a set, a repeated subset."""

from fractions import Fraction
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from repetita.errors import SpecError
from repetita.spec import ExactFraction, Spec, introduced

Unit = Literal["sequence", "document", "paragraph", "sentence"]
Part = Literal["whole", "beginning"]
"""Whether the run is the whole treatment or, as `until` says, the first steps of a longer run."""

INTEGER_PASSES_BELOW = 20
"""Below this many passes E must be a whole number (experiment design, rule 3)."""


class Stream(Spec):
    """Every sequence at most once: the single-epoch regime and the honest control."""

    kind: Literal["stream"] = "stream"

    def settled(self, *, total: int, batch_size: int) -> Self:  # noqa: ARG002
        """The treatment with all that the run's size decides filled in (nothing, here)."""
        return self

    def until(self, step: int) -> Self:  # noqa: ARG002
        """The treatment whose first `step` steps are these and that says nothing of later ones."""
        return self


class Passes(Spec):
    """A fixed set of `n_sequences` sequences, seen pass after pass, order drawn anew each pass.

    The set is the first `n_sequences` of the pool's order, so that sets are nested within a seed. With
    `out_of` it is drawn by the run's seed out of a common set, which is the same for every seed: the first
    `out_of` sequences of the order of `common_seed`, what a run of that seed would read without `out_of`.
    """

    kind: Literal["passes"] = "passes"
    n_sequences: PositiveInt
    reordered: int = introduced(0, ge=0)
    """Number of another order of every pass, the first too, over the same set; 0 is the run's own order."""
    out_of: PositiveInt | None = introduced(None)
    """Sequences of the common set that `n_sequences` are drawn of; None has no common set."""
    common_seed: int = introduced(0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.out_of is None and self.common_seed != 0:
            raise SpecError(
                f"Passes: common_seed = {self.common_seed} has no effect without out_of; give out_of, the "
                f"size of the common set"
            )
        if self.out_of is not None and self.out_of < self.n_sequences:
            raise SpecError(
                f"Passes: n_sequences = {self.n_sequences} cannot be drawn out_of {self.out_of}; raise "
                f"out_of to at least {self.n_sequences}"
            )
        if self.out_of is not None and self.reordered:
            raise SpecError(
                f"Passes: reordered = {self.reordered} is for a set without out_of; leave one of the two out"
            )
        return self

    def settled(self, *, total: int, batch_size: int) -> Self:  # noqa: ARG002
        """See `Stream.settled`."""
        return self

    def until(self, step: int) -> Self:  # noqa: ARG002
        """See `Stream.until`."""
        return self


class RepeatedSubset(Spec):
    """A fraction f of the slots re-reads a small subset: E * S = f * T (repeated-data paper, section 2).

    Give three of fraction f, passes E, n_sequences S and total T (in slots; the run gives T); `settled`
    solves for the rest, rejects contradictions, and keeps f and S only. Slot g is in the repeated lane iff
    floor((g+1)f) > floor(g f). For unit `sequence`, lane position k reads what the control reads at
    lane position k mod S, permuted anew each pass after the first; so subsets are nested in S and
    E = 1 is the control.

    Other units come from the set `units`, in a keyed order, and S is always their text in sequences.
    Documents are read whole (the last one up to S), their order drawn anew each pass. Paragraphs and
    sentences, as many as come nearest to S sequences of tokens, are each written into the unique sequence
    of its slot, at the lane rate that makes the share of tokens f.

    `slots = "empty"` is the starvation control: the same steps with nothing trained on where the subset was.

    With `start` and `stop` all of this holds inside the steps [start, stop) alone (of the base: pauses for
    special batches are left out): T is their slots, f the share of them that re-read, floor(f * T) to the
    slot, and E the passes that they make. Before and after them the run reads what the control reads, the
    text of its own unique slots included, and what the subset is made of is what the control reads inside
    the window, so that nothing of it is read outside; subsets of different windows are different text.
    """

    kind: Literal["repeated_subset"] = "repeated_subset"
    fraction: ExactFraction | None = None
    n_sequences: PositiveInt | None = None
    passes: ExactFraction | None = None
    total: PositiveInt | None = None
    unit: Unit = "sequence"
    slots: Literal["repeated", "empty"] = "repeated"
    part: Part = introduced("whole")
    start: int | None = introduced(None, ge=0)
    """First step of the window; None: the run's first."""
    stop: PositiveInt | None = introduced(None)
    """Step at which the window ends; None: the end of the run."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.stop is not None and self.stop <= self.begins:
            raise SpecError(
                f"RepeatedSubset: the window of steps [{self.begins}, {self.stop}) is empty; stop must be "
                f"after start"
            )
        if self.fraction is not None and not 0 < self.fraction <= 1:
            raise SpecError(
                f"RepeatedSubset: fraction = {self.fraction} is outside (0, 1]; give the share of "
                f"training slots that re-read the subset, for example 0.1"
            )
        if self.passes is not None:
            if self.passes < 1:
                raise SpecError(
                    f"RepeatedSubset: passes = {self.passes} is below 1; the first reading counts as 1"
                )
            if self.passes < INTEGER_PASSES_BELOW and self.passes.denominator != 1:
                raise SpecError(
                    f"RepeatedSubset: passes = {self.passes} must be a whole number below "
                    f"{INTEGER_PASSES_BELOW}"
                )
        return self

    @property
    def begins(self) -> int:
        """First step of the window, 0 where none is given."""
        return self.start or 0

    def settled(self, *, total: int, batch_size: int) -> "Stream | RepeatedSubset":
        """The canonical treatment (fraction, n_sequences and window) for a run of `total` slots.

        The first steps of a run, up to where its window begins, are the control.
        """
        if self.total is not None and self.total != total:
            raise SpecError(
                f"RepeatedSubset: total = {self.total} contradicts the run, whose steps x batch_size "
                f"are {total} slots; leave total out or change the steps"
            )
        steps = total // batch_size
        if self.part == "whole":
            self._inside(steps)
        elif self.begins >= steps > 0:
            return Stream()
        stop = self.stop if self.stop is not None and self.stop < steps else None
        slots = ((steps if stop is None else stop) - self.begins) * batch_size
        part: Part = "whole"
        if self.part == "beginning" and self.fraction is not None and self.n_sequences is not None:
            fraction, n_sequences = self.fraction, self.n_sequences
            if n_sequences > (fraction * slots).__floor__():
                part = "beginning"
        else:
            fraction, n_sequences = solve_repetition(
                fraction=self.fraction,
                passes=self.passes,
                n_sequences=self.n_sequences,
                total=slots,
                of="the run" if slots == total else "the window",
            )
        return type(self)(
            fraction=fraction,
            n_sequences=n_sequences,
            unit=self.unit,
            slots=self.slots,
            part=part,
            start=self.start or None,
            stop=stop,
        )

    def until(self, step: int) -> "Stream | RepeatedSubset":
        """The treatment whose first `step` steps are these, of a run that may end in its first pass.

        Up to where the window begins it is the control, up to where it ends it is that without an end.
        """
        if 0 < step <= self.begins:
            return Stream()
        stop = self.stop if self.stop is not None and self.stop < step else None
        return self.edit(part="beginning", stop=stop)

    def _inside(self, steps: int) -> None:
        """Raise SpecError where the window does not lie in a run of so many steps."""
        if (self.start and self.start >= steps) or (self.stop is not None and self.stop > steps):
            end = "its end" if self.stop is None else str(self.stop)
            raise SpecError(
                f"RepeatedSubset: the window of steps {self.begins} to {end} is outside the run of {steps} "
                f"steps; move it or lengthen the run"
            )


def solve_repetition(
    *,
    fraction: Fraction | None,
    passes: Fraction | None,
    n_sequences: int | None,
    total: int,
    of: str = "the run",
) -> tuple[Fraction, int]:
    """Fraction f and subset size S from any two of f, E, S, given the T slots of `of`: `E * S = f * T`.

    The lane has K = floor(f * T) slots. S is K / E, exactly for E below 20 and to the nearest whole
    sequence above, so the realised E is K / S. Raises SpecError where the values contradict.
    """
    if fraction is None:
        if passes is None or n_sequences is None:
            raise SpecError(
                "RepeatedSubset: give two of fraction, passes and n_sequences (the run gives the total)"
            )
        if passes * n_sequences > total:
            raise SpecError(
                f"RepeatedSubset: passes {passes} x n_sequences {n_sequences} = {passes * n_sequences} "
                f"slots, more than the {total} of {of}; lower one or lengthen {of}"
            )
        return passes * n_sequences / total, n_sequences
    lane = (fraction * total).__floor__()
    if lane < 1:
        raise SpecError(
            f"RepeatedSubset: fraction {fraction} of {total} slots is less than one slot; raise either"
        )
    if n_sequences is None:
        if passes is None:
            raise SpecError("RepeatedSubset: give passes or n_sequences beside the fraction")
        return fraction, _subset_size(lane, passes)
    if n_sequences > lane:
        raise SpecError(
            f"RepeatedSubset: n_sequences = {n_sequences} exceeds the {lane} repeated slots (fraction "
            f"{fraction} of {total}), so it would not be read once; lower it"
        )
    if passes is not None and _subset_size(lane, passes) != n_sequences:
        raise SpecError(
            f"RepeatedSubset: E * S = f * T does not hold: {passes} passes x {n_sequences} sequences against "
            f"{fraction} x {total} = {lane} slots; leave one of the three out"
        )
    return fraction, n_sequences


def _subset_size(lane: int, passes: Fraction) -> int:
    """S = K / E, whole by rule below 20 passes and rounded above."""
    size = Fraction(lane) / passes
    if passes < INTEGER_PASSES_BELOW and size.denominator != 1:
        raise SpecError(
            f"RepeatedSubset: {lane} repeated slots are not {passes} whole passes; choose steps x batch_size "
            f"so that fraction x slots is a multiple of {passes}"
        )
    if size < 1:
        raise SpecError(
            f"RepeatedSubset: passes = {passes} exceeds the {lane} repeated slots; at most {lane} passes fit"
        )
    return round(size)


Base = Annotated[Stream | Passes | RepeatedSubset, Field(discriminator="kind")]
