"""Our model as GPT-NeoX of transformers: the same weights in another's code, laid out in another order."""

from typing import TYPE_CHECKING

from repetita.model.transformer import ROTARY_BASE, Transformer

if TYPE_CHECKING:
    from transformers import GPTNeoXForCausalLM

PARTS = {
    "attention_norm": "input_layernorm", "qkv": "attention.query_key_value",
    "attention_out": "attention.dense", "mlp_norm": "post_attention_layernorm",
    "mlp_in": "mlp.dense_h_to_4h", "mlp_out": "mlp.dense_4h_to_h",
}  # fmt: skip


def as_neox(model: Transformer) -> "GPTNeoXForCausalLM":
    """A model with rotary positions and an MLP."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    own = model.config
    rotary = {"rope_type": "default", "rope_theta": ROTARY_BASE, "partial_rotary_factor": 1.0}
    config = GPTNeoXConfig(
        vocab_size=own.vocab_size, hidden_size=own.d_model, num_hidden_layers=own.n_layer,
        num_attention_heads=own.n_head, intermediate_size=own.mlp_width, hidden_act="gelu",
        max_position_embeddings=own.context, use_parallel_residual=False, rope_parameters=rotary,
        tie_word_embeddings=False,
    )  # fmt: skip
    other = GPTNeoXForCausalLM(config)
    other.eval()  # type: ignore[no-untyped-call]
    state = {"gpt_neox.embed_in.weight": model.embedding.weight, "lm_head.weight": model.output_weight}
    for kind in ("weight", "bias"):
        state[f"gpt_neox.final_layer_norm.{kind}"] = getattr(model.final_norm, kind)
        for layer, block in enumerate(model.blocks):
            for ours, theirs in PARTS.items():
                value = getattr(getattr(block, ours), kind)
                if ours == "qkv":
                    three_by_head = value.view(3, own.n_head, -1, *value.shape[1:])
                    value = three_by_head.transpose(0, 1).reshape(value.shape)
                state[f"gpt_neox.layers.{layer}.{theirs}.{kind}"] = value
    other.load_state_dict(state)
    return other
