"""A tiny Llama as a GGUF file, written by the gguf library with the layout that llama.cpp gives it."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import pre_tokenizers

from tests.model.strangers import CONTEXT, N_HEAD, N_LAYER, SHARED, D, stranger

SPECIAL = ["<s>", "</s>"]
SYMBOLS = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), "th"]
"""Bytes, and one merge."""

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write_packed(path: Path) -> Any:
    """Writes the file; the model that it holds."""
    gguf: Any = importlib.import_module("gguf")
    model: Any = stranger("llama", vocab_size=len(SYMBOLS))
    writer: Any = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(CONTEXT)
    writer.add_block_count(N_LAYER)
    writer.add_feed_forward_length(48)
    writer.add_embedding_length(D)
    writer.add_rope_dimension_count(D // N_HEAD)
    writer.add_rope_freq_base(10_000.0)
    writer.add_head_count(N_HEAD)
    writer.add_head_count_kv(SHARED["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(model.config.rms_norm_eps)
    writer.add_vocab_size(len(SYMBOLS))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(SYMBOLS)
    writer.add_token_types([3, 3, *[1] * (len(SYMBOLS) - 2)])
    writer.add_token_merges(["t h"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    for name, value in model.state_dict().items():
        stem, _, kind = name.rpartition(".")
        if stem.startswith("model.layers."):
            _, _, layer, part = stem.split(".", 3)
            stem = f"blk.{layer}.{NAMES[part]}"
        else:
            stem = NAMES[stem]
        writer.add_tensor(f"{stem}.{kind}", _turned(name, value.numpy()))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


def _turned(name: str, value: Any) -> Any:
    """llama.cpp turns neighbouring values of queries and keys, where transformers turns the two halves."""
    heads = {"q_proj": N_HEAD, "k_proj": SHARED["num_key_value_heads"]}
    for part, n in heads.items():
        if part in name:
            halves = value.reshape(n, 2, value.shape[0] // n // 2, value.shape[1])
            value = halves.swapaxes(1, 2).reshape(value.shape)
    return np.ascontiguousarray(value, dtype=np.float32)
