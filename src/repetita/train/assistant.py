"""What the processes of a run beside rank 0 do: their shares of whatever it says, and nothing else."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from repetita.corpus.document_ids import RunIds
from repetita.corpus.schedule import Schedule
from repetita.corpus.sequences import Corpus, CorpusSpec, compose
from repetita.errors import EngineError, RepetitaError, TrainingDiverged, first_line
from repetita.model import device
from repetita.train.parallel import Opening, shared_updater
from repetita.train.ranks import Order, SharedStop, Team
from repetita.train.recipe import open_ids, open_schedule
from repetita.train.shared import SharedUpdater
from repetita.train.update import first_model


def assist(team: Team, *, open_corpus: Callable[[CorpusSpec], Corpus]) -> int:
    """What all processes but rank 0 do: take part in whatever it says, until the end; their exit code.

    `open_corpus` opens a corpus that rank 0 has built. They write nothing and say nothing: rank 0 tells what
    went wrong, also where one of them is to blame.
    """
    taking_part: _Assistant | None = None
    code = None
    with SharedStop(team), suppress(EngineError):
        while code is None:
            with team.together():
                what, about = team.follow()
                if what == "end":
                    code = int(about[0])
                elif what == "open":
                    taking_part = None
                    taking_part = _Assistant.open(*about, team=team, open_corpus=open_corpus)
                elif taking_part is not None:
                    taking_part.do(what, *about)
    code = EngineError.exit_code if code is None else code
    team.leave(failed=code != 0)
    return code


class _Assistant(NamedTuple):
    """What a process other than rank 0 has of a run."""

    updater: SharedUpdater
    corpus: Corpus
    schedule: Schedule
    ids: RunIds | None

    @classmethod
    def open(
        cls, opening: Opening, *, team: Team, open_corpus: Callable[[CorpusSpec], Corpus]
    ) -> "_Assistant | None":
        """The same run as rank 0 has opened; None where that fails in any process, as rank 0 then hears."""
        spec, options = opening.spec, opening.options._replace(device=team.device)
        try:
            corpus = open_corpus(spec.corpus)
            if corpus.fingerprint != opening.corpus:
                raise EngineError("the corpus that is found here is another one than rank 0 has")
            if not team.place.local_rank:  # Of another machine, which may read another copy than rank 0.
                corpus.verify()
            schedule = open_schedule(spec, corpus=corpus)
            ids = open_ids(spec, corpus=corpus, schedule=schedule)
            place = device.setup(options.device, threads=options.threads)
            model = first_model(spec, place=place, options=options, whole=opening.kind != "fsdp2")
        except Exception as error:  # noqa: BLE001
            team.agree(str(error) if isinstance(error, RepetitaError) else first_line(error))
            return None
        if not team.agree(None):
            return None
        updater = shared_updater(model, spec=spec, place=place, options=options, team=team, kind=opening.kind)
        return cls(updater, corpus, schedule, ids)

    def do(self, what: Order, *about: Any) -> None:
        """Takes part in one thing that rank 0 has said."""
        if what != "update":
            getattr(self.updater, what)(*about)
            return
        step, tokens = about
        batch = self.schedule.batch(step)
        rows = compose(batch, self.corpus.sets, ids=self.ids)
        with suppress(TrainingDiverged):  # Rank 0 has seen it as well.
            self.updater.update(rows, batch=batch, tokens=tokens)
