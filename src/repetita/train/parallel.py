"""One run in several processes: its model by DDP or FSDP2, its rows shared out, its probes shared out.

Rank 0 runs the loop and alone writes the run's folder; the others assist (`assistant.py`): they open the same
corpus, take their share of each update and of the rows that probes score, and hold their parts of the state.
"""

import inspect
import os
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from repetita.corpus.sequences import Corpus
from repetita.errors import SpecError
from repetita.model import device
from repetita.model.adopted import Adopted
from repetita.model.config import ModelConfig, count
from repetita.model.loss import Objective
from repetita.model.transformer import Transformer, initialise
from repetita.train.optimizer import Optimizer
from repetita.train.options import Options
from repetita.train.ranks import Team
from repetita.train.recipe import RunSpec
from repetita.train.sharded import ShardedOptimizer, fill
from repetita.train.shared import SharedUpdater
from repetita.train.update import Updater, objective_of

Kind = Literal["ddp", "fsdp2"]

STATE_BYTES = 20
"""A parameter under DDP: weight, gradient, what DDP reduces, and two moments, 4 bytes each."""
USABLE = 0.9
"""Share of a device's memory that a run may fill."""


class Opening(NamedTuple):
    """What the other processes must know to take part in a run."""

    spec: RunSpec
    corpus: str
    """Fingerprint of the corpus."""
    kind: Kind
    options: Options


def ddp_bytes(spec: RunSpec, *, rows: int, options: Options) -> int:
    """Memory that a process takes under DDP for passes of so many rows, in bytes, about.

    State, and activations as in `study.accelerators.memory_per_gpu`; of layers that are computed again what
    goes into each, and all of one.
    """
    model, narrow = spec.model, options.dtype == "bfloat16"
    width = 2 if narrow else 4
    layer = 14 * model.d_model + 3 * (model.mlp_width if isinstance(model, ModelConfig) else model.d_mlp)
    layers = model.n_layer * layer * width
    if options.recompute:
        layers = layer * width + model.n_layer * model.d_model * 4
    state = STATE_BYTES + (2 if narrow else 0)  # Autocast keeps what it has rounded.
    return state * count(model).total + rows * spec.corpus.length * layers


def choose(spec: RunSpec, *, options: Options) -> Kind | None:
    """How a run is shared: as its team was told, else by DDP where that fits into a device's memory.

    None for a run in one process. Raises SpecError for what cannot be shared so.
    """
    team = options.team
    if team is None:
        return None
    if team.world > spec.batch_size:
        raise SpecError(
            f"{team.world} processes for batches of {spec.batch_size} sequences leave some without any; "
            f"start at most {spec.batch_size}"
        )
    if spec.recipe.dropout and team.world > 1:
        raise SpecError(
            f"dropout {spec.recipe.dropout} draws its masks for the whole batch in one process, and several "
            f"would draw others; train this run in one, or with dropout 0"
        )
    adopted = not isinstance(spec.model, ModelConfig)
    if team.parallel == "fsdp2" and adopted:
        raise SpecError(
            "a model that somebody else trained is shared by --parallel ddp only; FSDP2 here knows the "
            "layers of this package's own transformer"
        )
    if team.parallel != "auto":
        return team.parallel
    rows = -(-spec.batch_size // team.world)
    needed = ddp_bytes(spec, rows=min(options.micro_batch or rows, rows), options=options)
    return "ddp" if adopted or needed <= USABLE * _memory(team) else "fsdp2"


def opened_updater(
    model: Transformer | Adopted,
    *,
    spec: RunSpec,
    corpus: Corpus,
    place: device.Device,
    options: Options,
    kind: Kind | None,
) -> Updater | SharedUpdater:
    """What updates a model; of several processes rank 0 calls it, and has the others open the run."""
    team = options.team
    if team is None or kind is None:
        return _alone(model, spec=spec, place=place, options=options)
    told = options._replace(team=None, push=None)
    team.lead("open", Opening(spec, corpus.fingerprint, kind, told))
    with team.together():
        team.agree(None)
    return shared_updater(model, spec=spec, place=place, options=options, team=team, kind=kind)


def _alone(model: Transformer | Adopted, *, spec: RunSpec, place: device.Device, options: Options) -> Updater:
    optimizer = Optimizer(model, recipe=spec.recipe)
    return Updater(spec, model, optimizer, place.torch_device, options.micro_batch, options.dtype)


def shared_updater(
    model: Transformer | Adopted,
    *,
    spec: RunSpec,
    place: device.Device,
    options: Options,
    team: Team,
    kind: Kind,
) -> SharedUpdater:
    """A model as part of the team's; all processes must call it."""
    with team.together():
        if kind == "ddp":
            part = _alone(model, spec=spec, place=place, options=options)
            # Rotary tables and the like are the same everywhere; newer torch names it anew.
            names = ("forward_sync_buffers", "broadcast_buffers")
            known = inspect.signature(DistributedDataParallel.__init__).parameters
            buffers: dict[str, Any] = {next(name for name in names if name in known): False}
            # Torch then leaves gradients in the buckets where it put them at first. Moved after the first
            # update, three processes or more add them up in another order, and a run that goes on would
            # differ from one that never stopped.
            kept: dict[str, Any] = {"find_unused_parameters": True}
            compute = DistributedDataParallel(Step(model), **buffers, **kept)
            return SharedUpdater(replace(part, compute=compute, team=team), team=team)
        assert isinstance(model, Transformer)
        _shard(model, seed=spec.seed, team=team)
        optimizer = ShardedOptimizer(model, recipe=spec.recipe)
        where, micro_batch = place.torch_device, options.micro_batch
        part = Updater(spec, model, optimizer, where, micro_batch, options.dtype, team=team)
        return SharedUpdater(part, team=team)


class Step(nn.Module):
    """The objective of some rows as one forward pass of a module, which is what DDP wraps."""

    def __init__(self, model: Transformer | Adopted) -> None:
        super().__init__()
        self.parameters_of = model.module if isinstance(model, Adopted) else model
        self._model = [model]  # In a list, so that its parameters are not named twice.
        _, weight = next(iter(model.named_parameters()))
        # Nothing reads it: torch warns where it is to look for such parameters and there is none.
        self.unread = nn.Parameter(weight.new_zeros(1))

    def forward(self, tokens_BL: Tensor, **read: Any) -> Objective:
        """See `update.objective_of`."""
        made = objective_of(self._model[0], tokens_BL, **read)
        if isinstance(self._model[0], Adopted):
            # What of a head is not a plain matrix has its gradient already: DDP must still wait for it.
            nothing = sum(p.sum() for p in self.parameters_of.parameters()) * 0.0
            made = made._replace(value=made.value + nothing)
        return made


def _shard(model: Transformer, *, seed: int, team: Team) -> None:
    """Gives each process its part of every initial parameter; layers are gathered when they are used.

    Rank 0 draws one parameter after the other. Layers are gathered in float32, so that norms see what one
    process would; autocast rounds them afterwards.
    """
    # Imported here, for it takes a worker that shares nothing as long as a third of torch itself.
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh(torch.device(team.device).type, (team.world,))
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
        register_fsdp_forward_method(block, "at")
    # The embedding stays gathered from the forward pass on: the objective reads it as the output matrix.
    fully_shard(model, mesh=mesh, reshard_after_forward=False)
    register_fsdp_forward_method(model, "states")
    rotary, model.rotary = model.rotary, None  # Its tables are made already.
    model.to_empty(device=team.device)
    model.rotary = rotary
    for name, parameter in model.named_parameters():
        value = None
        if not team.rank:
            value = initialise(torch.empty(parameter.shape), name=name, n_layer=len(model.blocks), seed=seed)
        fill(parameter, value=value)


def _memory(team: Team) -> float:
    """Bytes of memory that one process may have: that of its GPU, or its part of this machine's."""
    if team.device.startswith("cuda"):
        return float(torch.cuda.get_device_properties(team.device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / team.place.local_world
