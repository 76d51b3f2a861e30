"""Our models as those of transformers: the same logits from another library's class, tokenizer included.

Shapes: V ids, D width, H heads, K width of a head, 3 for queries, keys and values.
"""

import copy
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from repetita import seeds
from repetita.corpus.tokenizer import Tokenizer
from repetita.errors import RepetitaError, SpecError
from repetita.journal.disk import storage_errors, sync_file, sync_folder
from repetita.model.config import ModelConfig
from repetita.model.exported_tokenizer import ABSENT, Exchange, exchange
from repetita.model.transformer import ROTARY_BASE, Transformer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

OFF = -1e4
"""Logit of a token that only the export knows: its probability is 0 in half precision, too."""

CHECK_TOKENS = 512
"""Tokens, at most, of the two rows on which an exported model is compared."""

TOLERANCE = 1e-2
"""Largest difference of logits in double precision, relative to the largest logit where that is above 1, that
is let through: weights in a wrong place make one of about 1. GPT-NeoX computes its rotary frequencies in
float32, ours are rounded from float64, which is 1e-3 at 512 tokens in a model with very large weights."""


class Exported(NamedTuple):
    """A folder that `AutoModelFor... .from_pretrained` and `AutoTokenizer.from_pretrained` open."""

    path: Path
    architecture: str
    """Class of transformers."""
    difference: float
    """Largest difference of logits between the model in the folder, read back, and the given one."""


def architecture(config: ModelConfig) -> str:
    """The class of transformers that holds a model of this shape; SpecError where none does.

    GPT2LMHeadModel (learned positions), GPTNeoXForCausalLM without parallel residual (rotary ones),
    RobertaPreLayerNormForMaskedLM (masked, learned positions).
    """
    if config.objective == "causal":
        return "GPT2LMHeadModel" if config.position == "learned" else "GPTNeoXForCausalLM"
    if config.position == "rotary":
        raise SpecError(
            "a masked model with rotary positions cannot be exported: RobertaPreLayerNormForMaskedLM, the "
            "class of transformers for masked models of this shape, has learned positions; export a run "
            "with position = 'learned'"
        )
    return "RobertaPreLayerNormForMaskedLM"


def export(model: Transformer, *, tokenizer: Tokenizer, to: Path, card: str = "") -> Exported:
    """Writes a model and its tokenizer into the new folder `to`, reads them back and compares logits.

    Weights are float32 safetensors. A model without MLP gets one of width 1 that is 0 and adds nothing.
    `card` is the text of its README.md. All is written into a hidden folder that is renamed in the end.
    Raises SpecError where `to` is there already, where no class holds the model or its tokenizer, and
    StorageError.
    """
    name = architecture(model.config)
    if to.exists():
        raise _taken(to)
    exchanged = exchange(tokenizer, config=model.config)
    with new_folder(to) as hidden:
        with storage_errors(to), no_bars():
            as_pretrained(model, exchanged).save_pretrained(hidden)
            exchanged.tokenizer.save_pretrained(str(hidden))
            (hidden / "README.md").write_text(card, encoding="utf-8")
        with no_bars():
            difference = _difference(model, hidden, exchanged)
    return Exported(to, name, difference)


@contextmanager
def new_folder(to: Path, /) -> Iterator[Path]:
    """A hidden folder that becomes `to` when all went well; SpecError where that is there already."""
    if to.exists():
        raise _taken(to)
    hidden = to.with_name(f".{to.name}.{os.getpid()}.tmp")
    try:
        with storage_errors(to):
            hidden.mkdir(parents=True)
        yield hidden
        with storage_errors(to):
            for file in hidden.iterdir():
                sync_file(file)
            sync_folder(hidden)
            hidden.rename(to)
            sync_folder(to.parent)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def _taken(to: Path) -> SpecError:
    return SpecError(f"{to} is there already; give the path of a new folder")


@contextmanager
def no_bars() -> Iterator[None]:
    """Without the progress bars of transformers, which come for the smallest file."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def as_pretrained(model: Transformer, exchanged: Exchange, /) -> "PreTrainedModel":
    """The model in the class of transformers that holds it, in evaluation mode, with the exported ids."""
    import transformers

    name = architecture(model.config)
    made, weights = _MAKERS[name]
    # Their constructors draw initial weights from the global generator, which is nobody's business here.
    with torch.random.fork_rng(devices=[]):
        other: PreTrainedModel = getattr(transformers, name)(made(model.config, exchanged))
    state = dict(weights(model, exchanged))
    missing, unknown = other.load_state_dict(state, strict=False)
    if missing or unknown:
        raise RepetitaError(
            f"this version of transformers names the weights of {name} otherwise; update repetita"
        )
    other.eval()  # type: ignore[no-untyped-call]
    return other


def _gpt2_config(config: ModelConfig, exchanged: Exchange) -> Any:
    from transformers import GPT2Config

    return GPT2Config(
        vocab_size=len(exchanged.ids),
        n_positions=config.context,
        n_embd=config.d_model,
        n_layer=config.n_layer,
        n_head=config.n_head,
        n_inner=config.mlp_width or 1,
        activation_function="gelu",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        layer_norm_epsilon=1e-5,
        **_settings(config, exchanged),
    )


def _neox_config(config: ModelConfig, exchanged: Exchange) -> Any:
    from transformers import GPTNeoXConfig

    return GPTNeoXConfig(
        hidden_size=config.d_model,
        num_hidden_layers=config.n_layer,
        num_attention_heads=config.n_head,
        intermediate_size=config.mlp_width or 1,
        hidden_act="gelu",
        max_position_embeddings=config.context,
        layer_norm_eps=1e-5,
        use_parallel_residual=False,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": ROTARY_BASE,
            "partial_rotary_factor": 1.0,
        },
        vocab_size=len(exchanged.ids),
        **_settings(config, exchanged),
    )


def _roberta_config(config: ModelConfig, exchanged: Exchange) -> Any:
    from transformers import RobertaPreLayerNormConfig

    return RobertaPreLayerNormConfig(
        vocab_size=len(exchanged.ids),
        hidden_size=config.d_model,
        num_hidden_layers=config.n_layer,
        num_attention_heads=config.n_head,
        intermediate_size=config.mlp_width or 1,
        hidden_act="gelu",
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        max_position_embeddings=exchanged.pad + 1 + config.context,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        **_settings(config, exchanged),
    )


def _settings(config: ModelConfig, exchanged: Exchange) -> dict[str, Any]:
    """What all three classes are told in the same words."""
    return {
        "tie_word_embeddings": config.output == "tied",
        "bos_token_id": exchanged.start,
        "eos_token_id": exchanged.start,
        "pad_token_id": exchanged.pad,
    }


Weights = Iterator[tuple[str, Tensor]]


def _gpt2_weights(model: Transformer, exchanged: Exchange) -> Weights:
    assert model.position is not None
    yield "transformer.wte.weight", _rows(model.embedding.weight, exchanged)
    yield "transformer.wpe.weight", model.position.weight
    yield "lm_head.weight", _rows(model.output_weight, exchanged)
    yield from _both("transformer.ln_f", model.final_norm)
    names = {
        "attention_norm": "ln_1",
        "qkv": "attn.c_attn",
        "attention_out": "attn.c_proj",
        "mlp_norm": "ln_2",
        "mlp_in": "mlp.c_fc",
        "mlp_out": "mlp.c_proj",
    }
    for layer, ours, kind, value in _of_layers(model):
        # Their linear layers hold the transposed matrix.
        yield f"transformer.h.{layer}.{names[ours]}.{kind}", value.T if value.ndim == 2 else value


def _neox_weights(model: Transformer, exchanged: Exchange) -> Weights:
    yield "gpt_neox.embed_in.weight", _rows(model.embedding.weight, exchanged)
    yield "lm_head.weight", _rows(model.output_weight, exchanged)
    yield from _both("gpt_neox.final_layer_norm", model.final_norm)
    names = {
        "attention_norm": "input_layernorm",
        "qkv": "attention.query_key_value",
        "attention_out": "attention.dense",
        "mlp_norm": "post_attention_layernorm",
        "mlp_in": "mlp.dense_h_to_4h",
        "mlp_out": "mlp.dense_4h_to_h",
    }
    H = model.config.n_head
    for layer, ours, kind, value in _of_layers(model):
        if ours == "qkv":  # Theirs go head by head: (H 3 K) where ours are (3 H K).
            by_head = value.view(3, H, -1, *value.shape[1:]).transpose(0, 1)
            value = by_head.reshape(value.shape)
        yield f"gpt_neox.layers.{layer}.{names[ours]}.{kind}", value


def _roberta_weights(model: Transformer, exchanged: Exchange) -> Weights:
    assert model.position is not None and model.head is not None and model.embedding_norm is not None
    core = "roberta_prelayernorm"
    yield f"{core}.embeddings.word_embeddings.weight", _rows(model.embedding.weight, exchanged)
    # Positions are counted from behind the id of the padding.
    unused_D = model.position.weight.new_zeros(exchanged.pad + 1, model.config.d_model)
    yield f"{core}.embeddings.position_embeddings.weight", torch.cat((unused_D, model.position.weight))
    yield f"{core}.embeddings.token_type_embeddings.weight", unused_D[:1]
    yield from _both(f"{core}.embeddings.LayerNorm", model.embedding_norm)
    yield from _both(f"{core}.LayerNorm", model.final_norm)
    yield from _both("lm_head.dense", model.head.dense)
    yield from _both("lm_head.layer_norm", model.head.norm)
    yield "lm_head.decoder.weight", _rows(model.output_weight, exchanged)
    off_V = torch.from_numpy(np.where(exchanged.ids == ABSENT, OFF, 0.0)).float()
    yield "lm_head.bias", off_V
    yield "lm_head.decoder.bias", off_V
    names = {
        "attention_norm": "attention.LayerNorm",
        "attention_out": "attention.output.dense",
        "mlp_norm": "intermediate.LayerNorm",
        "mlp_in": "intermediate.dense",
        "mlp_out": "output.dense",
    }
    for layer, ours, kind, value in _of_layers(model):
        within = f"{core}.encoder.layer.{layer}"
        if ours == "qkv":
            for name, part in zip(("query", "key", "value"), value.chunk(3), strict=True):
                yield f"{within}.attention.self.{name}.{kind}", part
        else:
            yield f"{within}.{names[ours]}.{kind}", value


_MAKERS = {
    "GPT2LMHeadModel": (_gpt2_config, _gpt2_weights),
    "GPTNeoXForCausalLM": (_neox_config, _neox_weights),
    "RobertaPreLayerNormForMaskedLM": (_roberta_config, _roberta_weights),
}


def _of_layers(model: Transformer) -> Iterator[tuple[int, str, str, Tensor]]:
    """Layer, our name of a part, weight or bias, value; without an MLP one of width 1 that is 0."""
    D = model.config.d_model
    nothing = {
        "mlp_norm": {"weight": torch.ones(D), "bias": torch.zeros(D)},
        "mlp_in": {"weight": torch.zeros(1, D), "bias": torch.zeros(1)},
        "mlp_out": {"weight": torch.zeros(D, 1), "bias": torch.zeros(D)},
    }
    for layer, block in enumerate(model.blocks):
        for ours in ("attention_norm", "qkv", "attention_out", "mlp_norm", "mlp_in", "mlp_out"):
            part = getattr(block, ours)
            for kind in ("weight", "bias"):
                value = nothing[ours][kind] if part is None else getattr(part, kind)
                yield layer, ours, kind, value


def _both(name: str, part: Any) -> Weights:
    """Weight and bias of a linear layer or a norm."""
    yield f"{name}.weight", part.weight
    yield f"{name}.bias", part.bias


def _rows(table_VD: Tensor, exchanged: Exchange) -> Tensor:
    """The rows of an embedding in the order of the exported ids; 0 for tokens that are not ours."""
    ids = torch.from_numpy(exchanged.ids).to(table_VD.device)
    return table_VD[ids.clamp(min=0)] * (ids != ABSENT)[:, None]


@torch.no_grad()
def _difference(model: Transformer, folder: Path, exchanged: Exchange) -> float:
    """Largest difference of logits between the model and what was written, on rows of drawn ids.

    Raises RepetitaError where they are not the same function.
    """
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    auto = AutoModelForCausalLM if model.mask_id is None else AutoModelForMaskedLM
    other = auto.from_pretrained(folder, local_files_only=True, dtype=torch.float32).eval()
    length = min(CHECK_TOKENS, model.config.context)
    drawn = seeds.words(np.arange(2 * length), key=seeds.key(0, "export")).reshape(2, length)
    # Id 0 at the end of a row is padding to a masked model of ours, and `pad` anywhere to one of theirs.
    among = np.setdiff1d(exchanged.ids, [ABSENT, 0, exchanged.ids[exchanged.pad]])
    own = among[(drawn % np.uint64(len(among))).astype(np.int64)]
    place = np.argsort(np.where(exchanged.ids == ABSENT, len(exchanged.ids), exchanged.ids))
    there, given = torch.from_numpy(place[: model.config.n_ids]), torch.from_numpy(place[own])

    def apart(ours: Transformer, theirs: Any) -> tuple[float, float]:
        """Largest difference, and largest logit."""
        device = ours.output_weight.device
        expected = (ours.hidden(torch.from_numpy(own).to(device)) @ ours.output_weight.T).cpu()
        found = theirs(given).logits[..., there]
        return float((found - expected).abs().max()), float(expected.abs().max())

    difference, _ = apart(model, other)
    # In double precision, since rounding alone can move the logits of a model with large weights by more.
    exact, largest = apart(copy.deepcopy(model).double(), other.double())
    if not exact <= TOLERANCE * max(1.0, largest):
        raise RepetitaError(
            f"the exported model's logits differ by {exact:.2g}, so nothing was written; use the versions of "
            f"transformers and torch that this version of repetita was tested with"
        )
    return difference
