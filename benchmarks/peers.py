"""What people train with instead: the transformers Trainer, and a plain PyTorch loop over a GPT.

Both are written as their users write them. The plain loop is nanoGPT's: fused attention, GELU, logits of all
tokens, `F.cross_entropy`, gradients clipped, fused AdamW.
"""

import time
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BETAS, EPS, CLIP, RATE = (0.9, 0.98), 1e-8, 1.0, 1e-3


class Shape(NamedTuple):
    """A size of the benchmark; everyone has learned positions, an MLP of 4 widths and a tied output."""

    n_layer: int
    d_model: int
    n_head: int
    vocab_size: int
    context: int = 128
    batch_size: int = 16

    @property
    def name(self) -> str:
        """For tables, as in `2x64 V=1024`."""
        return f"{self.n_layer}x{self.d_model} V={self.vocab_size}"

    @property
    def tokens(self) -> int:
        """Tokens of a step."""
        return self.context * self.batch_size


class PlainBlock(nn.Module):
    """Attention and MLP, each behind a norm."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        D = shape.d_model
        self.n_head = shape.n_head
        self.norm_1, self.norm_2 = nn.LayerNorm(D), nn.LayerNorm(D)
        self.qkv, self.out = nn.Linear(D, 3 * D), nn.Linear(D, D)
        self.mlp = nn.Sequential(nn.Linear(D, 4 * D), nn.GELU(), nn.Linear(4 * D, D))

    def forward(self, x: Tensor) -> Tensor:
        """The residual stream after this layer."""
        B, L, D = x.shape
        heads = [
            part.view(B, L, self.n_head, -1).transpose(1, 2) for part in self.qkv(self.norm_1(x)).split(D, -1)
        ]
        mixed = F.scaled_dot_product_attention(heads[0], heads[1], heads[2], is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(B, L, D))
        out: Tensor = x + self.mlp(self.norm_2(x))
        return out


class PlainGPT(nn.Module):
    """A GPT-2 as one writes it in an afternoon."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.tokens = nn.Embedding(shape.vocab_size, shape.d_model)
        self.places = nn.Embedding(shape.context, shape.d_model)
        self.blocks = nn.Sequential(*(PlainBlock(shape) for _ in range(shape.n_layer)))
        self.norm = nn.LayerNorm(shape.d_model)
        self.output = nn.Linear(shape.d_model, shape.vocab_size, bias=False)
        self.output.weight = self.tokens.weight
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits of all tokens."""
        x = self.tokens(ids) + self.places.weight[: ids.shape[1]]
        logits: Tensor = self.output(self.norm(self.blocks(x)))
        return logits


class PlainLoop:
    """The plain loop; with `hits` it also counts how often the most likely token is right, as ours does."""

    def __init__(self, shape: Shape, batches: Tensor, *, hits: bool) -> None:
        self.batches, self.hits, self.at = batches, hits, 0
        self.model = PlainGPT(shape)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=RATE, betas=BETAS, eps=EPS, weight_decay=0.0, fused=True
        )
        self.n_right = 0

    def steps(self, n: int) -> float:
        """Seconds of n steps."""
        began = time.perf_counter()
        for _ in range(n):
            rows = self.batches[self.at % len(self.batches)]
            self.at += 1
            logits, targets = self.model(rows[:, :-1]), rows[:, 1:]
            loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            if self.hits:
                self.n_right += int((logits.detach().argmax(-1) == targets).sum())
            float(loss.detach())
        return time.perf_counter() - began


class TrainerLoop:
    """GPT-2 of transformers under its Trainer: nothing logged, nothing saved, its fused AdamW."""

    def __init__(self, shape: Shape, batches: Tensor, *, folder: str) -> None:
        from transformers import GPT2Config, GPT2LMHeadModel

        self.rows = [{"input_ids": row[:-1], "labels": row[:-1]} for row in batches.flatten(0, 1)]
        self.shape, self.folder = shape, folder
        config = GPT2Config(
            vocab_size=shape.vocab_size,
            n_positions=shape.context,
            n_embd=shape.d_model,
            n_layer=shape.n_layer,
            n_head=shape.n_head,
            activation_function="gelu",
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            use_cache=False,
            bos_token_id=0,
            eos_token_id=0,
        )
        self.model = GPT2LMHeadModel(config)

    def steps(self, n: int, *, unmeasured: int = 3) -> float:
        """Seconds of n steps; those before are not counted, nor is what `train` does around its loop."""
        from transformers import Trainer, TrainerCallback, TrainingArguments

        moments: list[float] = []

        class Clock(TrainerCallback):
            """Takes the time at the end of each step."""

            def on_step_end(self, *_: Any, **__: Any) -> None:
                moments.append(time.perf_counter())

        arguments = TrainingArguments(
            output_dir=self.folder,
            max_steps=n + unmeasured,
            per_device_train_batch_size=self.shape.batch_size,
            learning_rate=RATE,
            adam_beta2=BETAS[1],
            max_grad_norm=CLIP,
            lr_scheduler_type="constant",
            optim="adamw_torch_fused",
            logging_strategy="no",
            save_strategy="no",
            eval_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
            dataloader_num_workers=0,
            dataloader_pin_memory=False,
        )
        trainer = Trainer(model=self.model, args=arguments, train_dataset=self.rows, callbacks=[Clock()])
        trainer.train()
        return moments[-1] - moments[unmeasured - 1]
