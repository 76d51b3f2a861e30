"""Our model as one of transformers: the same weights in another's code."""

from typing import TYPE_CHECKING

from repetita.model.transformer import Transformer

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

PARTS = {
    "attention_norm": "ln_1", "qkv": "attn.c_attn", "attention_out": "attn.c_proj", "mlp_norm": "ln_2",
    "mlp_in": "mlp.c_fc", "mlp_out": "mlp.c_proj",
}  # fmt: skip


def as_gpt2(model: Transformer) -> "GPT2LMHeadModel":
    """A model with learned positions, an MLP and tied embeddings, which shows its attention patterns."""
    from transformers import GPT2Config, GPT2LMHeadModel

    own = model.config
    config = GPT2Config(
        vocab_size=own.vocab_size, n_positions=own.context, n_embd=own.d_model, n_layer=own.n_layer,
        n_head=own.n_head, activation_function="gelu",
    )  # fmt: skip
    config._attn_implementation = "eager"  # The others do not give their patterns back.
    other = GPT2LMHeadModel(config)
    other.eval()  # type: ignore[no-untyped-call]
    state = {"transformer.wte.weight": model.embedding.weight, "lm_head.weight": model.embedding.weight}
    assert model.position is not None
    state["transformer.wpe.weight"] = model.position.weight
    for kind in ("weight", "bias"):
        state[f"transformer.ln_f.{kind}"] = getattr(model.final_norm, kind)
        for layer, block in enumerate(model.blocks):
            for ours, theirs in PARTS.items():
                value = getattr(getattr(block, ours), kind)
                # Their linear layers hold the transposed matrix.
                turned = value.T if value.ndim == 2 else value
                state[f"transformer.h.{layer}.{theirs}.{kind}"] = turned
    missing, unknown = other.load_state_dict(state, strict=False)
    assert not unknown and all("attn.bias" in name or "masked_bias" in name for name in missing)
    return other
