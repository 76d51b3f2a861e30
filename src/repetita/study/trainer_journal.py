"""The journal of a run that the Trainer of transformers trains: its rows, its loss and a callback.

Shapes: B rows of a batch, L tokens of a row, V vocabulary; W processes, A batches of a step in each.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from repetita.errors import SpecError
from repetita.study.elsewhere import RunElsewhere
from repetita.subject import Subject
from repetita.train.dataset import IGNORED

if TYPE_CHECKING:
    from transformers import TrainerCallback


def journalled(run: RunElsewhere, /, *, subject: Callable[[Any], Subject] | None = None) -> dict[str, Any]:
    """What a Trainer is given beside model and arguments: `Trainer(model, arguments, **journalled(run))`.

    These are `train_dataset`, `compute_loss_func` (the mean over the scored tokens of a step, as the
    Trainer's own, which also keeps sums by slot) and `callbacks`. `subject` makes of the model what probes
    ask; by default any language model of transformers is asked, in its evaluation mode. Several processes
    that each hold the model (torchrun, DDP) deal a step out among them, and the first one writes and
    measures. SpecError, before anything is trained, for arguments under which it would not train the run.

    >>> from repetita import CorpusSpec, Passes, Recipe, RunSpec, TokenizerSpec, journalled, ladder
    >>> from repetita import open_elsewhere
    >>> text = CorpusSpec(
    ...     source="python-stdlib", limit_documents=40, tokenizer=TokenizerSpec(kind="bytes"), length=32
    ... )
    >>> spec = RunSpec(
    ...     corpus=text,
    ...     model=ladder("laptop", vocab_size=257, context=33)["3.8k"],
    ...     treatment=Passes(n_sequences=8),
    ...     recipe=Recipe(learning_rate=0.01, warmup_steps=2),
    ...     steps=4,
    ...     batch_size=4,
    ...     trainer="transformers 5 Trainer",
    ... )
    >>> with open_elsewhere(spec) as run:
    ...     sorted(journalled(run))
    ['callbacks', 'compute_loss_func', 'train_dataset']
    """
    if run.rows.labels != "in_place":
        raise SpecError(
            "labels = 'next' is not what models of transformers read, which shift labels themselves; open "
            "the run with labels = 'in_place'"
        )
    journal = TrainerJournal(run, subject=subject)
    return {
        "train_dataset": run.rows,
        "compute_loss_func": journal.loss,
        "callbacks": [journal.listener()],
    }


class TrainerJournal:
    """Sums of the batches of a step until the Trainer has made its update."""

    def __init__(self, run: RunElsewhere, *, subject: Callable[[Any], Subject] | None = None) -> None:
        self.run = run
        self._subject = subject or self._asked
        self._sums: list[Tensor] = []
        self._began = time.perf_counter()

    def loss(self, outputs: Any, labels: Tensor, **given: Any) -> Tensor:
        """Cross-entropy over the scored tokens of a batch, divided by those of the whole step.

        The Trainer gives the number of these by name.
        """
        logits_BLV = outputs["logits"].float()
        if self.run.spec.model.objective == "causal":
            logits_BLV, labels = logits_BLV[:, :-1], labels[:, 1:]
        loss_BL = F.cross_entropy(logits_BLV.mT, labels, ignore_index=IGNORED, reduction="none")
        scored_BL = labels != IGNORED
        if torch.is_grad_enabled():  # else it is an evaluation of the Trainer's
            with torch.no_grad():
                hit_BL = (logits_BLV.argmax(dim=-1) == labels) & scored_BL
                sums = [part.double().sum(dim=1) for part in (loss_BL, hit_BL, scored_BL)]
                self._sums.append(torch.stack(sums, dim=1))
        n: Tensor | int | None = given.get("num_items_in_batch")
        return loss_BL.sum() / (scored_BL.sum() if n is None else n)

    def begin(self, arguments: Any, *, step: int, model: Any) -> None:
        """Checks the arguments and takes the journal to where the Trainer is."""
        self._check(arguments)
        self.run.begin(step)
        self._sums.clear()
        self.measure(model)
        self._began = time.perf_counter()

    def record(self, logs: dict[str, Any], *, model: Any) -> None:
        """Writes down the update that was just made, and measures what is due after it."""
        sums = _of_all(self._sums).cpu().numpy().astype(np.float64)
        self._sums.clear()
        self.run.record(
            sums,
            learning_rate=float(logs["learning_rate"]),
            gradient_norm=float(logs["grad_norm"]),
            seconds=time.perf_counter() - self._began,
        )
        self.measure(model)
        self._began = time.perf_counter()

    def measure(self, model: Any) -> None:
        """Lets due probes ask the model, which is afterwards in the mode that it was in."""
        if not self.run.due:
            return
        training = model.training
        model.eval()
        try:
            self.run.measure(self._subject(model))
        finally:
            model.train(training)

    def listener(self) -> "TrainerCallback":
        """What the Trainer calls."""
        from transformers import TrainerCallback

        journal = self

        class Journal(TrainerCallback):
            """Begins, records, commits and finishes the journal when the Trainer does."""

            def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:  # noqa: ARG002
                journal.begin(args, step=state.global_step, model=given["model"])

            def on_log(self, args: Any, state: Any, control: Any, **given: Any) -> None:  # noqa: ARG002
                if "grad_norm" in given["logs"]:  # The last log is a summary.
                    journal.record(given["logs"], model=given["model"])

            def on_save(self, args: Any, state: Any, control: Any, **given: Any) -> None:  # noqa: ARG002
                journal.run.commit()

            def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:  # noqa: ARG002
                if state.global_step == journal.run.spec.steps:
                    journal.run.finish()

        return Journal()

    def _check(self, arguments: Any) -> None:
        """Raises SpecError for arguments of the Trainer that do not train this run, and where a process would
        write that is not the first."""
        spec, processes = self.run.spec, arguments.world_size
        rows = processes * arguments.train_batch_size * arguments.gradient_accumulation_steps
        dealt = arguments.accelerator_config
        for name, given, wanted in (
            ("max_steps", arguments.max_steps, spec.steps),
            ("train_sampling_strategy", arguments.train_sampling_strategy, "sequential"),
            ("processes * per_device_train_batch_size * gradient_accumulation_steps", rows, spec.batch_size),
            (
                "average_tokens_across_devices",
                arguments.average_tokens_across_devices or processes == 1,
                True,
            ),
            ("accelerator_config.split_batches", dealt.split_batches, False),
            ("accelerator_config.dispatch_batches", bool(dealt.dispatch_batches), False),
            ("fsdp", arguments.fsdp or None, None),
            ("deepspeed", arguments.deepspeed, None),
            ("ignore_data_skip", arguments.ignore_data_skip, False),
            ("logging_strategy", str(getattr(arguments.logging_strategy, "value", "")), "steps"),
            ("logging_steps", arguments.logging_steps, 1),
        ):
            if given != wanted:
                raise SpecError(
                    f"TrainingArguments: {name} = {given}, and the journal of this run needs {wanted!r}; set "
                    f"it to that"
                )
        if (self.run.folder is None) != bool(arguments.process_index):
            raise SpecError(
                f"process {arguments.process_index} of the Trainer opened the run as another one; give "
                f"open_elsewhere its rank, or start the processes with torchrun"
            )

    def _asked(self, model: Any) -> Subject:
        """A language model of transformers as a subject that reads our ids."""
        from repetita.model.answering import Answering
        from repetita.model.foreign import Foreign
        from repetita.model.memory import Batches

        masked, device = self.run.spec.model.objective == "masked", model.device
        mask_id = self.run.spec.model.vocab_size if masked else None
        pad_id = 0 if masked else None
        return Answering(
            Foreign(model, device=device, mask_id=mask_id, pad_id=pad_id), batches=Batches(device)
        )


def _of_all(sums: list[Tensor]) -> Tensor:
    """Sums of the slots of a step, in their order, from those of this process's batches.

    Accelerate deals batches out in turn: of each A, process 0 has the first stretch, and so on.
    """
    own_AB3 = torch.stack(sums)
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return own_AB3.flatten(0, 1)
    all_W = [torch.empty_like(own_AB3) for _ in range(dist.get_world_size())]
    dist.all_gather(all_W, own_AB3.contiguous())
    return torch.stack(all_W, dim=1).flatten(0, 2)
