"""Tiny models of transformers with random weights, one an architecture, built in memory."""

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

N_LAYER, N_HEAD, D, V, CONTEXT = 2, 4, 32, 29, 24

SIZES: dict[str, Any] = {
    "vocab_size": V, "hidden_size": D, "num_hidden_layers": N_LAYER, "num_attention_heads": N_HEAD,
    "intermediate_size": 48, "max_position_embeddings": CONTEXT + 2, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
SHARED = {"num_key_value_heads": 2}
"""Two heads share their keys and values."""

OWN: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "gpt_neox": {"tie_word_embeddings": False},
    "llama": {**SHARED, "tie_word_embeddings": False},
    "mistral": {**SHARED, "sliding_window": 5},
    "qwen2": SHARED,
    "mixtral": {**SHARED, "num_local_experts": 2},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": D},
    "gemma2": {**SHARED, "head_dim": 8, "sliding_window": 5, "attn_logit_softcapping": 2.0},
    "gpt_oss": {**SHARED, "head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 1},
    "bloom": {"n_layer": N_LAYER, "n_head": N_HEAD},
    "qwen3": {**SHARED, "head_dim": 8},
    "gemma3_text": {
        **SHARED,
        "head_dim": 8,
        "sliding_window": 5,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "phi3": {**SHARED, "original_max_position_embeddings": CONTEXT + 2},
    "olmo2": SHARED,
    "falcon": {"alibi": True, "multi_query": False, "new_decoder_architecture": False},
    "mamba": {"state_size": 4},
    "jamba": {
        **SHARED,
        "num_experts": 2,
        "num_experts_per_tok": 1,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "mamba_d_state": 4,
        "mamba_dt_rank": 4,
        "use_mamba_kernels": False,
    },
    "diffllama": SHARED,
    "bert": {},
    "roberta": {},
    "modernbert": {
        "local_attention": 4,
        "global_attn_every_n_layers": 2,
        "cls_token_id": 1,
        "sep_token_id": 2,
    },
    "albert": {"embedding_size": 16},
    "distilbert": {"dim": D, "n_layers": N_LAYER, "n_heads": N_HEAD, "hidden_dim": 48},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_buckets": 8},
    "xlm": {"emb_dim": D, "n_layers": N_LAYER, "n_heads": N_HEAD, "n_words": V},
}
MASKED = ("bert", "roberta", "modernbert", "albert", "distilbert", "deberta-v2", "xlm")


def stranger(kind: str, *, attention: str | None = None, **other: Any) -> "PreTrainedModel":
    """A model ready to be asked, its weights large enough that heads differ; `other` overrides its config."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

    config = AutoConfig.for_model(kind, **{**SIZES, **OWN[kind], **other})
    if attention is not None:
        config._attn_implementation = attention
    kinds: Any = AutoModelForMaskedLM if kind in MASKED else AutoModelForCausalLM
    model: PreTrainedModel = kinds.from_config(config)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            start = 1.0 if name.endswith("weight") and parameter.ndim == 1 else 0.0
            parameter.copy_(start + 0.3 * torch.randn(parameter.shape, generator=generator))
    model.eval()  # type: ignore[no-untyped-call]
    return model
