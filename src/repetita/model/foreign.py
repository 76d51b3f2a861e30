"""A language model of transformers cut in two, so that logits can be made of some of its states at a time.

The trunk is the module inside the model whose answer the model turns into logits; the head is the model's own
code with that answer put in place of the trunk's. So soft caps, scales, transforms and biases of any
architecture are the model's own, and no code here knows its name.

Shapes: B rows, L tokens, N positions of these B * L, C states of one chunk, D width, V vocabulary.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from repetita.errors import SpecError
from repetita.model.answering import Readout
from repetita.model.pretrained_attention import Without

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CLOSE = {torch.float32: 1e-4, torch.float64: 1e-8}
"""How far logits made in two parts may be from the model's own, as a share of the largest; 16 bits: 3%."""

CACHES = ("past_key_values", "cache_params")
"""What models call that which they keep of the tokens read so far."""

LIMITS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length")
"""What configs call the most tokens that a model reads, the first that is there counts."""


class Trunk(NamedTuple):
    """What a model computes before its head."""

    module: nn.Module
    answer: type[Any]
    """The class of its answer, which the head takes apart."""


class Foreign(Readout):
    """A causal or masked language model of transformers, in evaluation mode, as states and logits.

    `mask_id` is None for a causal model. For a masked one `pad_id` at the end of a row is padding, which no
    token reads; a causal model reads nothing that comes later, and needs no such rule. `device` is where
    tokens are put. Where the model cannot be cut (`apart` is False: the head asks the trunk for more than
    its states) logits of whole batches are made, and batches should be small.
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        /,
        *,
        device: torch.device,
        mask_id: int | None = None,
        pad_id: int | None = None,
        without: Without | None = None,
    ) -> None:
        self.model, self.device, self.without = model, device, without
        self._mask_id, self._pad_id = mask_id, pad_id
        self._context = context_of(model)
        self._n_readable = int(getattr(model.get_input_embeddings(), "num_embeddings", 0)) or None
        self._trunk, self._n_ids = _cut(model, sample(self)[:1, :4], causal=mask_id is None)

    @property
    def mask_id(self) -> int | None:
        """See `Subject.mask_id`."""
        return self._mask_id

    @property
    def context(self) -> int | None:
        """The most tokens that the model has positions for; see `context_of`."""
        return self._context

    @property
    def n_ids(self) -> int:
        """The width of the logits; some models have more than their tokenizer has ids."""
        return self._n_ids

    @property
    def n_readable(self) -> int | None:
        """The rows of its embedding, which may be fewer than its tokenizer has ids."""
        return self._n_readable

    @property
    def apart(self) -> bool:
        """Whether the head works on states by the chunk."""
        return self._trunk is not None

    def states(self, tokens_BL: Tensor, /, *, at_N: Tensor) -> Tensor:
        """What the trunk answers at some of the flattened positions (N D); whole logits where it has none."""
        given = {"input_ids": tokens_BL}
        reads_BL = self.reads(tokens_BL)
        if reads_BL is not None:
            given["attention_mask"] = reads_BL.long()
        off = self.without
        answer = _run(self, given) if off is None else off.run(lambda: _run(self, given))
        states_xD = _answered(self, answer).flatten(0, 1)
        return states_xD[at_N.to(states_xD.device)]

    def logits(self, states_CD: Tensor, /) -> Tensor:
        """The model's own head (C V), in float32."""
        if self._trunk is None:
            return states_CD.float().clone()
        own = _logits(self.model, self._trunk, states_CD)
        # Of the model's own memory only where nothing was converted, and then nothing else holds it.
        return own.to(device=states_CD.device, dtype=torch.float32)

    def reads(self, tokens_BL: Tensor, /) -> Tensor | None:
        """False at padding (B L); None where there is none."""
        if self._mask_id is None or self._pad_id is None or not (tokens_BL[:, -1] == self._pad_id).any():
            return None
        return (tokens_BL != self._pad_id).flip(1).cummax(1).values.flip(1)

    @property
    def spares(self) -> bool:
        """See `writing.Reads`; not where a state is carried on that takes one token at a time."""
        return self.without is None and not self.model._is_stateful

    def read_on(self, tokens_BK: Tensor, /, *, kept: Any = None, last: int = 1) -> tuple[Tensor, Any]:
        """See `writing.Reads`; what is kept is the model's own cache, the tokens where it has none."""
        if self.without is not None or isinstance(kept, Tensor):
            return super().read_on(tokens_BK, kept=kept, last=last)
        answer = _run(self, {"input_ids": tokens_BK, **(kept or {})}, keep=True)
        likely_N = self.likeliest(_answered(self, answer)[:, -last:].flatten(0, 1))
        found = {name: getattr(answer, name, None) for name in CACHES}
        cache = {name: value for name, value in found.items() if value is not None}
        return likely_N.view(-1, last).to(tokens_BK.device), cache or tokens_BK

    def of_rows(self, kept: Any, on_B: Tensor, /) -> Any:
        """See `writing.Reads`."""
        if isinstance(kept, Tensor):
            return super().of_rows(kept, on_B)
        found = deepcopy(kept)
        for cache in found.values():
            cache.reorder_cache(on_B.nonzero()[:, 0])
        return found


def _run(readout: Foreign, given: dict[str, Any], /, *, keep: bool = False) -> Any:
    """What the trunk answers, the whole model where it has none; with its cache, if it is to `keep` one."""
    asked = readout.model if readout._trunk is None else readout._trunk.module
    return asked(**given) if readout.mask_id is not None else asked(**given, use_cache=keep)


def _answered(readout: Foreign, answer: Any, /) -> Tensor:
    """The states in such an answer (B L D), the logits where it has no trunk."""
    found: Tensor = answer.logits if readout._trunk is None else answer.last_hidden_state
    return found


def sample(readout: Foreign, /) -> Tensor:
    """Two rows of 5 tokens (2 5) that differ in the last; none has a meaning of its own to the model."""
    config = readout.model.config.get_text_config()
    special = [getattr(config, f"{name}_token_id", None) for name in ("pad", "bos", "eos")]
    plain = [i for i in range(min(9, readout.n_readable or 9)) if i not in special] or [0]
    ids = [plain[i % len(plain)] for i in range(6)]
    return torch.tensor([ids[:5], [*ids[:4], ids[5]]], device=readout.device)


@torch.no_grad()
def reads_ahead(readout: Foreign, /) -> bool:
    """Whether what a model says of a token depends on tokens behind it, as no causal model does."""
    before_8 = torch.tensor([0, 1, 2, 3, 5, 6, 7, 8], device=readout.device)
    logits_8V = readout.logits(readout.states(sample(readout), at_N=before_8))
    apart = (logits_8V[:4] - logits_8V[4:]).abs().max()
    return bool(apart > CLOSE.get(readout.model.dtype, 0.03) * logits_8V.abs().max())


def context_of(model: "PreTrainedModel", /) -> int | None:
    """Tokens that a model has positions for; None where its config sets no limit.

    RoBERTa and its kin count positions from behind their padding id: a table of 514 serves 512 tokens.
    """
    config = model.config.get_text_config()
    stated = [getattr(config, name, None) for name in LIMITS]
    limits = [limit for limit in stated if isinstance(limit, int) and limit > 0][:1]
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            taken = 0 if module.padding_idx is None else module.padding_idx + 1
            limits.append(module.num_embeddings - taken)
            break
    return min(limits, default=None)


@torch.no_grad()
def _cut(model: "PreTrainedModel", tokens_1L: Tensor, *, causal: bool) -> tuple[Trunk | None, int]:
    """The trunk, None where the model's logits do not follow from its states alone; the logits' width."""
    model.config.return_dict = True
    options = {"use_cache": False} if causal else {}
    called: dict[nn.Module, Any] = {}

    def remember(module: nn.Module, _: Any, answer: Any) -> None:
        if hasattr(answer, "last_hidden_state"):
            called[module] = answer

    handles = [part.register_forward_hook(remember) for part in model.modules() if part is not model]
    try:
        own_1LV = model(input_ids=tokens_1L, **options).logits
    finally:
        for handle in handles:
            handle.remove()
    if own_1LV.shape[:2] != tokens_1L.shape:
        raise SpecError(
            f"{type(model).__name__} answers {own_1LV.shape[1]} positions where it reads "
            f"{tokens_1L.shape[1]}, so that none is known to be a token's; give a model that answers each "
            f"token that it reads"
        )
    # `modules` names the outer ones first.
    found = next((part for part in model.modules() if part in called), None)
    if found is None:
        return None, own_1LV.shape[-1]
    trunk = Trunk(found, type(called[found]))
    try:
        made_LV = _logits(model, trunk, called[found].last_hidden_state[0])
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        # The head asks the trunk for more than its states.
        return None, own_1LV.shape[-1]
    room = CLOSE.get(made_LV.dtype, 0.03) * float(own_1LV.abs().max())
    same = made_LV.shape == own_1LV.shape[1:] and bool(((made_LV - own_1LV[0]).abs() <= room).all())
    return trunk if same else None, own_1LV.shape[-1]


def _logits(model: "PreTrainedModel", trunk: Trunk, states_CD: Tensor) -> Tensor:
    """What the model makes of these states of its trunk (C V)."""
    answer = trunk.answer(last_hidden_state=states_CD[None])
    nothing_1C = torch.zeros((1, len(states_CD)), dtype=torch.long, device=states_CD.device)
    with _answering(trunk.module, answer):
        logits_CV: Tensor = model(input_ids=nothing_1C).logits[0]
    return logits_CV


@contextmanager
def _answering(module: nn.Module, answer: Any) -> Iterator[None]:
    """The module answers this whatever it is asked; accelerate, too, sets `forward` on single modules."""
    before = module.__dict__.get("forward")
    module.forward = lambda *_, **__: answer
    try:
        yield
    finally:
        del module.forward
        if before is not None:
            module.forward = before
