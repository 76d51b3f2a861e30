"""What heads of any model of transformers read, layer by layer, and the model without some of its heads.

No architecture is named here. While a forward pass runs, the model's attention is served by a function of
ours (transformers' AttentionInterface), which is given queries, keys and values of each layer and hands them
to the eager attention of the layer's own file: soft caps, sinks, sliding windows and shared keys are those of
the model, and the patterns are those of `output_attentions=True` with eager attention, bit for bit.

Models must be in evaluation mode, as `from_pretrained` leaves them. Layers count in the order in which
attention is called: in a model that also has layers of another kind, only those with attention count.

Shapes: B rows, L tokens, H heads, G heads of keys and values (H is a multiple), K width of a head.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from repetita.errors import NotApplicable, SpecError
from repetita.model.memory import Batches
from repetita.subject import Head, Mask, Pattern, Patterns, Tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "repetita"
"""Under which our function stands in transformers' tables of attention."""

EAGER = "eager_attention_forward"
"""What each file of transformers that is served by the interface calls its explicit attention."""

Mixed = tuple[Tensor, Tensor]
"""Values as the heads mix them (B L H K), and the pattern by which they do (B H L L)."""


class Call(NamedTuple):
    """What one layer asks of attention: transformers' own arguments."""

    module: nn.Module
    query_BHLK: Tensor
    key_BGLK: Tensor
    value_BGLK: Tensor
    mask: Tensor | None
    options: Mapping[str, Any]

    def mixed(self) -> Mixed:
        """The answer of the eager attention of the model's own file."""
        forward = inspect.unwrap(type(self.module).forward)
        eager = forward.__globals__.get(EAGER)
        if eager is None:
            raise NotApplicable(
                f"not applicable: {type(self.module).__name__} has no explicit attention to show its pattern"
            )
        asked = (self.query_BHLK, self.key_BGLK, self.value_BGLK, self.mask)
        return cast("Mixed", eager(self.module, *asked, **self.options))

    def valueless(self) -> "Call":
        """The same pattern, with values of width 1 that take no memory."""
        nothing = self.key_BGLK.new_zeros(()).expand(*self.key_BGLK.shape[:3], 1)
        return self._replace(value_BGLK=nothing)


Take = Callable[[Call], Mixed]
T = TypeVar("T")
_TAKE: ContextVar[Take] = ContextVar("take")


@contextmanager
def served(model: "PreTrainedModel", /, take: Take) -> Iterator[None]:
    """Every attention of the model is answered by `take` as long as this lasts; then all is as it was.

    Raises NotApplicable at the end where attention was never asked for, as in a model that has none or one of
    its own, and where it was asked for more often than there are layers, so that no answer is a layer's.
    """
    _register()
    n_calls = 0

    def counted(call: Call) -> Mixed:
        nonlocal n_calls
        n_calls += 1
        return take(call)

    found: list[Any] = [getattr(part, "config", None) for part in model.modules()]
    configs = {id(config): config for config in found if hasattr(config, "_attn_implementation")}
    before = [(config, config._attn_implementation) for config in configs.values()]
    token = _TAKE.set(counted)
    try:
        for config in configs.values():
            config._attn_implementation = NAME
        yield
    finally:
        _TAKE.reset(token)
        # The whole model's comes first, which sets those of its parts as well.
        for config, implementation in before:
            config._attn_implementation = implementation
    if not n_calls:
        raise NotApplicable(
            f"not applicable: '{model.config.model_type}' has no attention that transformers' attention "
            f"interface serves"
        )
    n_layers = getattr(model.config.get_text_config(), "num_hidden_layers", n_calls)
    if n_calls > n_layers:
        raise NotApplicable(
            f"not applicable: '{model.config.model_type}' asks for attention {n_calls} times in {n_layers} "
            f"layers, so that no pattern is that of a head"
        )


class Without:
    """A model that runs without some of its heads: what they mix is 0, the bias behind them stays.

    `frozen` patterns are those of the model with all its heads, which runs first on the same tokens;
    `recomputed` ones are what the heads look at in what is left. Raises SpecError for a head that the model
    lacks.
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        /,
        *,
        heads: Iterable[tuple[int, int]],
        patterns: Patterns = "frozen",
    ) -> None:
        self.model, self.patterns = model, patterns
        self.heads = frozenset(Head(*head) for head in heads)
        shape = head_counts(model)
        for layer, head in sorted(self.heads):
            if not (0 <= layer < len(shape) and 0 <= head < shape[layer]):
                raise SpecError(
                    f"without: there is no head {layer}.{head} in a model of {len(shape)} layers with "
                    f"{max(shape)} heads each; both count from 0"
                )

    def run(self, forward: Callable[[], T], /, *, seen: "list[Call] | None" = None) -> T:
        """What a forward pass answers without the heads; `seen` takes down the attention that was paid.

        `forward` is any call of the model or of its trunk, without a cache: with frozen patterns it is
        called twice.
        """
        whole: list[Call] = []
        if self.patterns == "frozen":
            with served(self.model, recording(whole)):
                forward()
        taken: list[Call] = [] if seen is None else seen
        with served(self.model, self._take(whole, taken)):
            return forward()

    def _take(self, whole: list[Call], seen: list[Call]) -> Take:
        def take(call: Call) -> Mixed:
            layer = len(seen)
            if self.patterns == "frozen":
                call = whole[layer]._replace(value_BGLK=call.value_BGLK)
            seen.append(call.valueless())
            mixed_BLHK, pattern_BHLL = call.mixed()
            off = [head.head for head in self.heads if head.layer == layer]
            mixed_BLHK[:, :, off] = 0
            return mixed_BLHK, pattern_BHLL

        return take


@torch.no_grad()
def attend(
    model: "PreTrainedModel",
    tokens: Tokens,
    /,
    *,
    reads: Mask | None = None,
    batches: Batches | None = None,
    without: Without | None = None,
) -> Iterator[Pattern]:
    """One layer's patterns after the other for tokens (B, L), float32 (B, H, L, L); see `Attending.attend`.

    `reads` (B, L) is False on padding that no token may read (transformers' attention mask). The forward
    pass, over `batches` of rows (None: all at once), is over before the first pattern comes; queries and keys
    are kept of it.
    """
    passes: list[list[Call]] = []

    def run(part: slice) -> None:
        calls: list[Call] = []
        forward = trunk(model, tokens[part], reads=None if reads is None else reads[part])
        if without is None:
            with served(model, recording(calls)):
                forward()
        else:
            without.run(forward, seen=calls)
        passes.append(calls)

    if batches is None:
        run(slice(None))
    else:
        batches.each(len(tokens), length=tokens.shape[1], work=run)
    for layer in zip(*passes, strict=True):
        yield np.concatenate([call.mixed()[1].float().cpu().numpy() for call in layer])


@torch.no_grad()
def head_counts(model: "PreTrainedModel", /) -> tuple[int, ...]:
    """Heads of each layer with attention, as a pass over one token shows them."""
    calls: list[Call] = []
    with served(model, recording(calls)):
        trunk(model, np.zeros((1, 1), dtype=np.int64))()
    return tuple(call.query_BHLK.shape[1] for call in calls)


def recording(calls: list[Call], /) -> Take:
    """Answers as the model would, and keeps what each pattern is made of."""

    def take(call: Call) -> Mixed:
        calls.append(call.valueless())
        return call.mixed()

    return take


def trunk(model: "PreTrainedModel", tokens: Tokens, /, *, reads: Mask | None = None) -> Callable[[], Any]:
    """A forward pass over tokens (B, L) up to the last layer, no logits, to be called."""
    place = torch.device("cpu") if model.device.type == "meta" else model.device
    options: dict[str, Any] = {"input_ids": torch.tensor(tokens, device=place)}
    if reads is not None:
        options["attention_mask"] = torch.tensor(reads, device=place).long()
    if "use_cache" in inspect.signature(model.base_model.forward).parameters:
        options["use_cache"] = False
    return lambda: model.base_model(**options)


def _register() -> None:
    """Our function in transformers' table of attention, with the masks that eager attention takes."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    AttentionInterface.register(NAME, _answer)
    AttentionMaskInterface.register(NAME, eager_mask)


def _answer(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> Mixed:
    return _TAKE.get()(Call(module, query, key, value, attention_mask, options))
