"""A model that somebody else trained as a Subject: of the Hugging Face hub, a folder, or a GGUF file."""

from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from repetita.errors import NotApplicable, SpecError
from repetita.model import pretrained_attention, pretrained_circuits
from repetita.model.answering import Answering, check_ids
from repetita.model.foreign import Foreign, reads_ahead
from repetita.model.loss import CHUNK_VALUES
from repetita.model.memory import BATCH_TOKENS, Batches, free_bytes
from repetita.model.pretrained_attention import Without
from repetita.model.pretrained_files import PretrainedFiles, find_pretrained
from repetita.model.pretrained_loading import DTypeName, Loaded, load_pretrained, understood
from repetita.model.pretrained_tokenizing import HfTokenizing, open_tokenizing
from repetita.subject import Floats, Pattern, Patterns, Tokens

MOST_TOKENS = 2**16
"""Tokens that are read at once where memory is no limit: more makes no GPU faster."""

UNUSED_NAMED = 20
"""Weights without a place in the model that its record names, at most."""

_NOT_WITHOUT = "not applicable: circuits are read of the whole model only, not of one without some heads"


class PretrainedSubject(Answering):
    """A model of transformers as a Subject with all its capabilities; see `open_pretrained`.

    What a head does is asked through transformers' attention interface (`attend`, `without`: any
    architecture that it serves) or read off the weights (GPT-2, GPT-NeoX and Llama layouts); elsewhere
    these raise NotApplicable.
    """

    def __init__(
        self,
        loaded: Loaded,
        /,
        *,
        files: PretrainedFiles,
        batch_tokens: int | None = None,
        without: Without | None = None,
    ) -> None:
        self.loaded, self.files = loaded, files
        self.model = loaded.model
        masked = loaded.kind.objective == "masked"
        device = loaded.placement.device
        mask_id, pad_id = (self.tokenizing.mask_id, self.tokenizing.pad_id) if masked else (None, None)
        with understood(files):
            readout = Foreign(loaded.model, device=device, mask_id=mask_id, pad_id=pad_id, without=without)
        tokens = batch_tokens or fitting_tokens(readout, device=device)
        super().__init__(readout, batches=Batches(device, tokens=tokens))
        self.foreign = readout

    @cached_property
    def tokenizing(self) -> HfTokenizing:
        """Its tokenizer, for `corpus.windows.Windows`; SpecError where it has none."""
        return open_tokenizing(self.files, masked=self.loaded.kind.objective == "masked")

    @property
    def context(self) -> int | None:
        """The most tokens that it reads at once; None where it sets no limit."""
        return self.readout.context

    @cached_property
    def sha256(self) -> str:
        """Hash over its config and weights, which are read for it: the same model anywhere has the same."""
        return self.files.sha256()

    def record(self) -> dict[str, Any]:
        """What can change its answers, as JSON types; no paths. Halved batches are those up to now."""
        import transformers

        loaded, places = self.loaded, getattr(self.model, "hf_device_map", {})
        return {
            "name": self.files.name,
            "commit": self.files.commit,
            "sha256": self.sha256,
            "format": self.files.format,
            "class": type(self.model).__name__,
            "objective": loaded.kind.objective,
            "n_params": loaded.n_params,
            "unused_weights": list(loaded.unused[:UNUSED_NAMED]),
            "context": self.context,
            "device": str(self.device),
            "dtype": str(loaded.placement.dtype).removeprefix("torch."),
            "places": sorted({str(place) for place in places.values()}) if loaded.spill else [],
            "attention": self.model.config._attn_implementation,
            "head": "by chunks" if self.foreign.apart else "whole",
            "batch_tokens": self.batches.tokens,
            "halvings": list(self.batches.halvings),
            "torch": str(torch.__version__),
            "transformers": transformers.__version__,
        }

    def attend(self, tokens: Tokens, /) -> Iterator[Pattern]:
        """One layer's patterns after the other; see `Attending.attend`.

        A batch that does not fit into memory on the way is halved, as in `score`.
        """
        check_ids(self.readout, tokens=tokens)
        reads_BL = self.foreign.reads(torch.tensor(tokens))
        yield from pretrained_attention.attend(
            self.model,
            tokens,
            reads=None if reads_BL is None else reads_BL.numpy(),
            batches=self.batches,
            without=self.foreign.without,
        )

    def attribute(self, tokens: Tokens, targets: Tokens) -> Floats:
        """What each head adds to the target's logit; see `Attributing.attribute`."""
        self._check_whole()
        check_ids(self.readout, tokens=tokens, targets=targets)
        found: list[Floats] = []

        def add(part: slice) -> None:
            found.append(pretrained_circuits.attribute(self.model, tokens[part], targets[part]))

        self.batches.each(len(tokens), length=tokens.shape[1], work=add)
        return np.concatenate(found, axis=2)

    def raises(self, tokens: Tokens, /) -> Iterator[Floats]:
        """What each head adds to the logits of a row's own tokens; see `Attributing.raises`."""
        self._check_whole()
        check_ids(self.readout, tokens=tokens)
        yield from pretrained_circuits.raises(self.model, tokens)

    def ov_copying(self) -> Floats:
        """See `Circuits.ov_copying`."""
        self._check_whole()
        return pretrained_circuits.ov_copying(self.model)

    def k_composition(self) -> Floats:
        """See `Circuits.k_composition`."""
        self._check_whole()
        return pretrained_circuits.k_composition(self.model)

    def without(
        self, heads: Iterable[tuple[int, int]], /, *, patterns: Patterns = "frozen"
    ) -> "PretrainedSubject":
        """See `Ablating.without`; NotApplicable where transformers' attention interface serves no head."""
        self._check_whole()
        ablated = Without(self.model, heads=heads, patterns=patterns)
        return PretrainedSubject(
            self.loaded, files=self.files, batch_tokens=self.batches.tokens, without=ablated
        )

    def _check_whole(self) -> None:
        if self.foreign.without is not None:
            raise NotApplicable(_NOT_WITHOUT)


def open_pretrained(
    source: str | Path,
    /,
    *,
    device: str = "auto",
    dtype: DTypeName = "auto",
    batch_tokens: int | None = None,
    allow_pickle: bool = False,
) -> PretrainedSubject:
    """The causal or masked language model of `hf:NAME@REVISION`, a folder that `save_pretrained` wrote, or a
    GGUF file, ready to be asked.

    Nothing that comes with a model is run: weights are safetensors, or a pickle where there are none and
    `allow_pickle` (read with weights_only), and remote code is off. `device` auto is the first GPU, else the
    CPU; `dtype` auto is float32 where that fits into its memory, else 16 bits; a model that fits in neither
    is dealt out over GPU, CPU and disk by accelerate. `batch_tokens` are read at once, by default what
    memory allows; `record()` says what came of all that.

    Raises SpecError for a model that is not there (of a revision, with the nearest), has no language-model
    head, needs its own code or reads ahead, and DamagedError for weights that cannot be read.

    >>> from repetita.model.pretrained import open_pretrained
    >>> from transformers import GPT2Config, GPT2LMHeadModel
    >>> GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=9)).save_pretrained("tiny")
    >>> open_pretrained("tiny").record()["class"]
    'GPT2LMHeadModel'
    """
    if batch_tokens is not None and batch_tokens < 1:
        raise SpecError(f"batch_tokens = {batch_tokens} reads nothing; give 1 or more")
    try:
        import accelerate  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        raise SpecError(
            f"models of others need {error.name}, which is not installed; run: pip install 'repetita[hf]'"
        ) from None
    files = find_pretrained(source, allow_pickle=allow_pickle)
    loaded = load_pretrained(files, device=device, dtype=dtype)
    subject = PretrainedSubject(loaded, files=files, batch_tokens=batch_tokens)
    with understood(files):
        ahead = subject.mask_id is None and reads_ahead(subject.foreign)
    if ahead:
        raise SpecError(
            f"{files.name} is saved as a causal model ({type(loaded.model).__name__}), and its tokens read "
            f"those behind them; set is_decoder in its config if it was trained so, or give a causal model"
        )
    return subject


def fitting_tokens(readout: Foreign, /, *, device: torch.device) -> int:
    """Tokens that are read at once: on a CPU few, on a GPU what half of its free memory holds."""
    most = BATCH_TOKENS
    if device.type != "cpu":
        config = readout.model.config.get_text_config()
        width = int(config.hidden_size)
        inner = getattr(config, "intermediate_size", None) or 4 * width
        # The stream, its norm, queries, keys, values and what they mix; the MLP's inner values, twice.
        bytes_a_token = readout.model.dtype.itemsize * (8 * width + 3 * int(inner))
        room = free_bytes(device) // 2 if device.type == "cuda" else 0
        most = max(BATCH_TOKENS, min(MOST_TOKENS, room // bytes_a_token))
    if not readout.apart:
        most = min(most, CHUNK_VALUES.get(device.type, CHUNK_VALUES["cpu"]) // readout.n_ids)
    return max(1, most)
