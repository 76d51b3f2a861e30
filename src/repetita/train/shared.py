"""An updater whose work several processes share, and the subject that it makes for probes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from repetita.corpus.schedule import Batch
from repetita.errors import RepetitaError, first_line
from repetita.journal.records import StepRecord
from repetita.model.adopted import AdoptedSubject
from repetita.model.live import LiveSubject, RunSubject, subject_of
from repetita.model.transformer import Transformer
from repetita.subject import FULL, Floats, Moments, Rows, Sampling, Scores
from repetita.train.ranks import Team
from repetita.train.sharded import ShardedOptimizer, fill, whole
from repetita.train.update import Updater


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

    def update(self, rows: Rows, *, batch: Batch, tokens: int) -> StepRecord:
        """See `Updater.update`."""
        self._asked = None
        self.team.lead("update", batch.step, tokens)
        with self.team.together():
            return self.part.update(rows, batch=batch, tokens=tokens)

    def weights(self) -> dict[str, Tensor]:
        """See `Updater.weights`; empty but at rank 0."""
        self.team.lead("weights")
        with self.team.together():
            return whole(self.part.model.state_dict(), keep=not self.team.rank, device="cpu")

    def optimizer_state(self) -> dict[str, Tensor]:
        """See `Updater.optimizer_state`; empty but at rank 0."""
        self.team.lead("optimizer_state")
        with self.team.together():
            return whole(self.part.optimizer.parts(), keep=not self.team.rank, device="cpu")

    def load(self, weights: Mapping[str, Tensor], *, optimizer: Mapping[str, Tensor] | None = None) -> None:
        """See `Updater.load`; rank 0 alone has the tensors."""
        self.team.lead("take", optimizer is not None)
        self.take(optimizer is not None, weights=weights, optimizer=optimizer)

    def take(
        self,
        with_optimizer: bool,
        /,
        *,
        weights: Mapping[str, Tensor] | None = None,
        optimizer: Mapping[str, Tensor] | None = None,
    ) -> None:
        """This process's part of `load`."""
        self._asked = None
        with self.team.together():
            if with_optimizer:
                fill(self.part.optimizer.parts(), values=optimizer)
                self.part.optimizer.count_on()
            fill(self.part.model.state_dict(), values=weights)

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

    def _whole(self) -> RunSubject:
        model = self.part.model
        if isinstance(self.part.optimizer, ShardedOptimizer):
            assert isinstance(model, Transformer)
            weights = whole(model.state_dict(), keep=True)
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
