"""An updater whose work several processes share, and the subject that it makes for probes."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
from torch import Tensor

from repetita.corpus.schedule import Batch
from repetita.errors import RepetitaError, first_line
from repetita.journal.records import StepRecord
from repetita.model.adopted import AdoptedSubject
from repetita.model.live import LiveSubject, RunSubject, subject_of
from repetita.model.tensor_file import Later
from repetita.model.transformer import Transformer
from repetita.subject import FULL, Floats, Moments, Rows, Sampling, Scores
from repetita.train.optimizer import STEP
from repetita.train.ranks import Team
from repetita.train.sharded import ShardedOptimizer, fill, whole
from repetita.train.update import Updater

State = Literal["weights", "optimizer"]


class SharedUpdater:
    """An updater whose work all processes share. At rank 0 each method tells the others to do the same."""

    def __init__(self, part: Updater, *, team: Team) -> None:
        self.part, self.team = part, team
        self.spec, self.model, self.optimizer, self.device = (
            part.spec,
            part.model,
            part.optimizer,
            part.device,
        )
        self._asked: RunSubject | None = None
        self._known: dict[State, Mapping[str, Tensor]] = {}

    def update(self, rows: Rows, *, batch: Batch, tokens: int) -> StepRecord:
        """See `Updater.update`."""
        self._asked, self._known = None, {}
        self.team.lead("update", batch.step, tokens)
        with self.team.together():
            return self.part.update(rows, batch=batch, tokens=tokens)

    def weights(self) -> Mapping[str, Tensor]:
        """See `Updater.weights`; at rank 0, which gathers each tensor when it is asked for it."""
        return self._gathered("weights")

    def optimizer_state(self) -> Mapping[str, Tensor]:
        """See `Updater.optimizer_state`; likewise."""
        return self._gathered("optimizer")

    def load(self, weights: Mapping[str, Tensor], *, optimizer: Mapping[str, Tensor] | None = None) -> None:
        """See `Updater.load`; rank 0 alone has the tensors, and asks for one at a time."""
        of: State
        for of, values in (("optimizer", optimizer), ("weights", weights)):
            if values is not None:
                for name in self._parts(of):
                    self.fill(of, name, value=values[name])

    def whole(self, of: State, name: str) -> Tensor:
        """One tensor of the state, on the host of rank 0; all processes give their parts of it."""
        self.team.lead("whole", of, name)
        with self.team.together():
            found = whole(self._parts(of)[name])
            return found if self.team.rank else found.cpu()

    def fill(self, of: State, name: str, *, value: Tensor | None = None) -> None:
        """Gives each process its part of one tensor of the state, which rank 0 has."""
        self.team.lead("fill", of, name)
        self._asked = None
        with self.team.together():
            fill(self._parts(of)[name], value=value)
            if name == STEP and of == "optimizer":
                self.part.optimizer.count_on()

    def subject(self) -> RunSubject:
        """The model as a Subject, for the moment: rows that are scored are shared out, all else rank 0 does.

        Of a sharded model every process gathers the whole weights until the next update.
        """
        if self._asked is None:
            self.team.lead("subject")
            with self.team.together():
                self._asked = self._whole()
        if isinstance(self._asked, AdoptedSubject):
            return SharedAdopted(self._asked, by=self)
        return SharedLive(self._asked, by=self)

    def ask(self, name: str, rows: Rows, how: Mapping[str, Any], size: int | None = None) -> list[Any]:
        """What each process's share of rows is answered, at rank 0; an error of one is raised there.

        Shares are whole batches of `size` rows, the subject's, so that equal weights give equal bits in any
        world.
        """
        assert self._asked is not None
        size = size or self._asked.batches.size(rows.tokens.shape[1])
        if len(rows.tokens) <= size:
            return [getattr(self._asked, name)(rows, **how)]
        self.team.lead("ask", name, rows, how, size)
        batches = self.team.share(-(-len(rows.tokens) // size))
        share = slice(batches.start * size, batches.stop * size)
        answer, failure = None, None
        try:
            answer = getattr(self._asked, name)(
                Rows(rows.tokens[share], rows.targets[share], rows.scored[share]), **how
            )
        except Exception as error:  # noqa: BLE001
            failure = str(error) if isinstance(error, RepetitaError) else first_line(error)
        with self.team.together():
            answers = self.team.gather((answer, failure))
        for rank, (_, said) in enumerate(answers):
            if said is not None:
                raise RepetitaError(f"process {rank} of {self.team.world}: {said}")
        return [answer for answer, _ in answers]

    def _gathered(self, of: State) -> Mapping[str, Tensor]:
        if not isinstance(self.part.optimizer, ShardedOptimizer):
            return self._parts(of)  # Every process has all of it.
        return Later(self._parts(of), make=partial(self.whole, of))

    def _parts(self, of: State) -> Mapping[str, Tensor]:
        """This process's part of the state, looked up once between two updates."""
        if of not in self._known:
            self._known[of] = self.part.weights() if of == "weights" else self.part.optimizer_state()
        return self._known[of]

    def _whole(self) -> RunSubject:
        model = self.part.model
        if isinstance(self.part.optimizer, ShardedOptimizer):
            assert isinstance(model, Transformer)
            weights = {name: whole(values) for name, values in model.state_dict().items()}
            model = Transformer.holding(model.config, weights=weights).to(self.device)
        return subject_of(model, device=self.device)


class _SharedAnswers:
    """Answers to rows, each process asked for some of them."""

    by: SharedUpdater

    def score(self, rows: Rows) -> Scores:
        """See `Subject.score`."""
        return Scores(*_joined(self.by.ask("score", rows, {})))

    def predict(self, rows: Rows) -> Scores:
        """See `Predicting.predict`."""
        return Scores(*_joined(self.by.ask("predict", rows, {})))

    def log_probs(self, rows: Rows, /, *, sampling: Sampling = FULL) -> Floats:
        """See `Weighing.log_probs`."""
        return np.concatenate(self.by.ask("log_probs", rows, {"sampling": sampling}))

    def moments(self, rows: Rows, /) -> Moments:
        """See `Describing.moments`."""
        return Moments(*_joined(self.by.ask("moments", rows, {})))

    def margins(self, rows: Rows, /) -> Floats:
        """See `Deciding.margins`."""
        return np.concatenate(self.by.ask("margins", rows, {}))


class SharedLive(_SharedAnswers, LiveSubject):
    """A model of ours as a Subject whose rows all processes score."""

    def __init__(self, subject: LiveSubject, *, by: SharedUpdater) -> None:
        super().__init__(subject.model, device=subject.device)
        self.by = by


class SharedAdopted(_SharedAnswers, AdoptedSubject):
    """The same of a model that somebody else trained."""

    def __init__(self, subject: AdoptedSubject, *, by: SharedUpdater) -> None:
        super().__init__(subject.model, device=subject.device)
        self.by = by


def _joined(answers: Sequence[Sequence[Any]]) -> list[Any]:
    """Arrays of all processes, one behind the other; what is None stays so."""
    return [None if parts[0] is None else np.concatenate(parts) for parts in zip(*answers, strict=True)]
