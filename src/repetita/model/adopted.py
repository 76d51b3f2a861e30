"""A model that somebody else trained, taken into training: ids, dropout, loss and weights as a run asks.

It stays in its own class of transformers, with its own code and names of weights. Only ids are another's: a
corpus has 0 for the start token, and the ids of the model's tokenizer one higher than the library.

Shapes: B rows, L tokens, N positions of these B * L, C of one chunk, D width, V the width of the logits.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from repetita.corpus.pretrained_tokenizer import content_hash, hf_tokenizer_spec
from repetita.errors import DamagedError, SpecError
from repetita.journal.disk import storage_errors, write_atomic
from repetita.model import loss
from repetita.model.answering import Answering, Readout
from repetita.model.foreign import Foreign
from repetita.model.hub_snapshot import TEXT_FILES
from repetita.model.memory import Batches
from repetita.model.pretrained import PretrainedSubject, open_pretrained
from repetita.model.pretrained_files import PretrainedFiles, find_pretrained
from repetita.model.pretrained_loading import Loaded, load_pretrained
from repetita.model.pretrained_spec import PretrainedModel
from repetita.model.products import product
from repetita.subject import Floats, Pattern, Patterns, Tokens

PRETRAINED = "pretrained"
"""The folder inside a run's that holds config and tokenizer of the model it began with."""

OFF = -1e4
"""Logit of id 0, which the model's own distribution lacks: its probability is 0 in float32."""

FREE_OF_LIMIT = 2**20
"""The context that is written down for a model whose config sets none."""


def pretrained_model(source: str | Path, /) -> PretrainedModel:
    """What a run that starts from somebody else's model says of it; its weights are read for it.

    `source` is hf:NAME@REVISION or a folder in transformers' layout. Raises SpecError where there is no such
    model, it has no language-model head, no weights as safetensors or no token to stand before a text, and
    CorpusError where it has no tokenizer.json.

    >>> from repetita import pretrained_model
    >>> from tokenizers import Tokenizer, models
    >>> from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
    >>> GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=9)).save_pretrained("tiny")
    >>> words = Tokenizer(models.WordLevel({"yes": 0, "no": 1, "?": 2, "<s>": 3}, unk_token="?"))
    >>> _ = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>").save_pretrained("tiny")
    >>> pretrained_model("tiny").vocab_size
    5
    """
    files = _trainable(source)
    subject = open_pretrained(source, device="cpu", dtype="float32")
    model, kind, tokenizing = subject.model, subject.loaded.kind, subject.tokenizing
    config = model.config.get_text_config()
    tokenizer = hf_tokenizer_spec(str(files.folder))
    masked = kind.objective == "masked"
    around = tokenizing.behind if masked else ()
    bos = None if masked else tokenizing.bos_id
    wanted = [*around[-1:], bos, tokenizing.eos_id, config.bos_token_id, config.eos_token_id]
    start = next((one for one in wanted if isinstance(one, int)), None)
    if start is None:
        raise SpecError(
            f"{files.name} has no token that stands before a text or ends it; name one in its config.json, "
            f"as bos_token_id"
        )
    n_rows = subject.foreign.n_ids
    if max(start, tokenizer.vocab_size - 2) >= n_rows:
        raise SpecError(
            f"the tokenizer of {files.name} has {tokenizer.vocab_size - 1} ids and its model {n_rows}; give "
            f"a model with the tokenizer that it was trained with"
        )
    sha256 = content_hash(tokenizer)
    assert sha256 is not None
    inner = getattr(config, "intermediate_size", None) or getattr(config, "ffn_dim", None)
    return PretrainedModel(
        source=str(source),
        sha256=subject.sha256,
        tokenizer=sha256,
        architecture=type(model).__name__,
        objective=kind.objective,
        n_layer=int(config.num_hidden_layers),
        d_model=int(config.hidden_size),
        n_head=int(config.num_attention_heads),
        d_mlp=int(inner or 4 * config.hidden_size),
        vocab_size=tokenizer.vocab_size,
        context=subject.context or FREE_OF_LIMIT,
        start=start,
        pad=tokenizing.pad_id,
        mask=tokenizing.mask_id if masked else None,
        **_counted(model),
    )


def adopt(spec: PretrainedModel, /, *, device: str, dropout: float) -> "Adopted":
    """The model of a spec with the weights that a run begins with, in float32.

    Raises SpecError where it is not there, has other weights than the spec says, does not fit into memory or
    has no dropout that there is to be.
    """
    if spec.source is None:
        raise SpecError("PretrainedModel: where the model lies is not said; give its source")
    files = _trainable(spec.source)
    if files.sha256() != spec.sha256:
        raise SpecError(
            f"{files.name} holds other weights, or another config, than those that this run begins with "
            f"(sha256 {spec.sha256[:12]}); put those back, or start another run from what is there with "
            f"pretrained_model('{spec.source}')"
        )
    loaded = load_pretrained(files, device=device, dtype="float32", dropout=dropout)
    if loaded.spill is not None:
        raise SpecError(
            f"{files.name} does not fit into the memory of {device} in float32, which training takes four "
            f"times; give a device with more memory, or a smaller model"
        )
    return Adopted(spec, loaded=loaded, files=files)


def adopted_again(
    spec: PretrainedModel, /, *, run: Path, weights: Mapping[str, Tensor], device: str
) -> "Adopted":
    """The model that a run came to, from the weights of a checkpoint and what the run keeps of its start."""
    files = PretrainedFiles(spec.name, run / PRETRAINED, (), "safetensors")
    if not (files.folder / "config.json").is_file():
        raise DamagedError(f"{files.folder} is gone, without which nothing opens the run; train it again")
    loaded = load_pretrained(files, device=device, dtype="float32", weights=weights)
    return Adopted(spec, loaded=loaded, files=files)


def keep_files(files: PretrainedFiles, /, *, run: Path) -> None:
    """Keeps config and tokenizer inside a run, so that its checkpoints open wherever the start is gone."""
    folder = run / PRETRAINED
    with storage_errors(folder):
        folder.mkdir(exist_ok=True)
    for file in text_files(files.folder):
        if not (folder / file.name).exists():
            write_atomic(folder / file.name, file.read_bytes())


def text_files(folder: Path, /) -> list[Path]:
    """What of a model's folder is neither weights nor code."""
    found = {file for pattern in (*TEXT_FILES, "*.jinja") for file in folder.glob(pattern)}
    return sorted(file for file in found if file.is_file())


class Adopted:
    """A model of transformers under training, in the ids of a corpus; `train.update` says what it is asked.

    Between updates it is in evaluation mode. Dropout is drawn in its own layers, from the generator given.
    """

    def __init__(self, config: PretrainedModel, *, loaded: Loaded, files: PretrainedFiles) -> None:
        self.config, self.files, self.module = config, files, loaded.model
        self.inner = PretrainedSubject(loaded, files=files)
        self.foreign = self.inner.foreign
        self.module.requires_grad_(True)
        self._weight = _output_matrix(self.foreign)

    @property
    def mask_id(self) -> int | None:
        """The id that a corpus has for the mask; None for a causal model."""
        return self.config.vocab_size if self.config.objective == "masked" else None

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Its parameters by their names in transformers, those that are tied once."""
        return self.module.named_parameters()

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint keeps: of tied weights one, and no buffer that is made anew."""
        own = {name for name, _ in [*self.module.named_parameters(), *self.module.named_buffers()]}
        return {name: value for name, value in self.module.state_dict().items() if name in own}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor], /) -> None:
        """Takes back what `state_dict` gave."""
        own = self.state_dict()
        if own.keys() != state.keys():
            raise DamagedError(
                f"a checkpoint does not hold the weights of {self.config.architecture} as this version of "
                f"transformers names them; use the one in run.json"
            )
        for name, value in own.items():
            value.copy_(state[name])

    def states(
        self,
        tokens_BL: Tensor,
        /,
        *,
        at_N: Tensor,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """What the head makes logits of (N D), in training mode where something is dropped."""
        with _training(self.module, generator) if dropout and generator else nullcontext():
            return self.foreign.states(self.theirs(tokens_BL), at_N=at_N)

    def objective(self, states_ND: Tensor, *, targets_N: Tensor, scale: float) -> loss.Objective:
        """See `loss.objective`; by the output matrix where logits are that alone, else through the head."""
        targets_N = targets_N - 1
        if self._weight is not None:
            return loss.objective(states_ND, weight_VD=self._weight, targets_N=targets_N, scale=scale)
        size = loss.chunk_tokens(self.foreign.n_ids, device=states_ND.device.type)
        logits = self.foreign.logits
        return loss.objective_of_head(states_ND, logits=logits, targets_N=targets_N, scale=scale, size=size)

    def theirs(self, tokens_BL: Tensor, /) -> Tensor:
        """The model's own ids of those of a corpus."""
        config, separator_BL = self.config, tokens_BL == 0
        ids_BL = torch.where(separator_BL, config.start, tokens_BL - 1)
        if config.mask is None:
            return ids_BL
        behind_BL = separator_BL.flip(-1).cummin(-1).values.flip(-1)
        ids_BL = torch.where(behind_BL, config.pad, ids_BL)
        return torch.where(tokens_BL == config.vocab_size, config.mask, ids_BL)


class InCorpusIds(Readout):
    """States and logits of an adopted model in the ids of its corpus: column i + 1 is the model's id i."""

    def __init__(self, model: Adopted, /, foreign: Foreign) -> None:
        self.model, self.foreign = model, foreign

    @property
    def mask_id(self) -> int | None:
        """See `Subject.mask_id`."""
        return self.model.mask_id

    @property
    def context(self) -> int | None:
        """See `Foreign.context`."""
        return self.foreign.context

    @property
    def n_ids(self) -> int:
        """Those of the model, and id 0."""
        return self.foreign.n_ids + 1

    def states(self, tokens_BL: Tensor, /, *, at_N: Tensor) -> Tensor:
        """See `Foreign.states`."""
        return self.foreign.states(self.model.theirs(tokens_BL), at_N=at_N)

    def logits(self, states_CD: Tensor, /) -> Tensor:
        """The model's own behind a column for id 0, which it never says."""
        return F.pad(self.foreign.logits(states_CD), (1, 0), value=OFF)

    @property
    def spares(self) -> bool:
        """See `writing.Reads`."""
        return self.foreign.spares

    def read_on(self, tokens_BK: Tensor, /, *, kept: Any = None, last: int = 1) -> tuple[Tensor, Any]:
        """See `writing.Reads`."""
        likely, kept = self.foreign.read_on(self.model.theirs(tokens_BK), kept=kept, last=last)
        return likely + 1, kept

    def of_rows(self, kept: Any, on_B: Tensor, /) -> Any:
        """See `writing.Reads`."""
        return self.foreign.of_rows(kept, on_B)


class AdoptedSubject(Answering):
    """An adopted model as a Subject of its run: ids are the corpus's, capabilities those of its class."""

    def __init__(
        self,
        model: Adopted,
        *,
        device: torch.device,
        batch_rows: int | None = None,
        inner: PretrainedSubject | None = None,
    ) -> None:
        self.model, self.inner = model, inner or model.inner
        super().__init__(InCorpusIds(model, self.inner.foreign), batches=Batches(device, rows=batch_rows))

    @property
    def architecture(self) -> str:
        """The class of its model."""
        return self.model.config.architecture

    def attend(self, tokens: Tokens, /) -> Iterator[Pattern]:
        """See `Attending.attend`."""
        yield from self.inner.attend(self._theirs(tokens))

    def attribute(self, tokens: Tokens, targets: Tokens) -> Floats:
        """See `Attributing.attribute`."""
        return self.inner.attribute(self._theirs(tokens), self._theirs(targets))

    def raises(self, tokens: Tokens, /) -> Iterator[Floats]:
        """See `Attributing.raises`."""
        yield from self.inner.raises(self._theirs(tokens))

    def ov_copying(self) -> Floats:
        """See `Circuits.ov_copying`."""
        return self.inner.ov_copying()

    def k_composition(self) -> Floats:
        """See `Circuits.k_composition`."""
        return self.inner.k_composition()

    def without(
        self, heads: Iterable[tuple[int, int]], /, *, patterns: Patterns = "frozen"
    ) -> "AdoptedSubject":
        """See `Ablating.without`."""
        inner = self.inner.without(heads, patterns=patterns)
        return AdoptedSubject(self.model, device=self.device, batch_rows=self.batches.rows, inner=inner)

    def _theirs(self, tokens: NDArray[np.int64]) -> NDArray[np.int64]:
        found: NDArray[np.int64] = self.model.theirs(torch.tensor(tokens)).numpy()
        return found


def _trainable(source: str | Path) -> PretrainedFiles:
    """Files that a run can start from; SpecError for pickles and for GGUF files, which round weights."""
    try:
        files = find_pretrained(source)
    except SpecError as error:
        what, _, _ = str(error).partition(";")
        if not what.endswith("no weights as safetensors"):
            raise
        raise SpecError(
            f"{what}, and no run starts from a pickle; open it where you trust it and save it by "
            f"save_pretrained(FOLDER)"
        ) from None
    if files.format == "gguf":
        raise SpecError(
            f"{files.name} is a GGUF file, which no run starts from; give a folder of safetensors"
        )
    return files


def _counted(model: nn.Module) -> dict[str, int]:
    """Parameters by kind, those that are tied once."""
    anyhow: Any = model
    tables = {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding)}
    read = {id(one) for one in anyhow.get_input_embeddings().parameters()}
    head = anyhow.get_output_embeddings()
    last = {id(head.weight)} if head is not None else set()
    counts = dict.fromkeys(("embedding", "position", "output", "body", "matrices"), 0)
    for one in model.parameters():
        kinds = ((read, "embedding"), (last, "output"), (tables, "position"))
        kind = next((name for ids, name in kinds if id(one) in ids), "body")
        counts[kind] += one.numel()
        counts["matrices"] += one.numel() if kind == "body" and one.ndim > 1 else 0
    return counts


@torch.no_grad()
def _output_matrix(foreign: Foreign) -> Tensor | None:
    """The matrix that alone makes logits of states; None where the head is more, or cannot be cut off."""
    head = foreign.model.get_output_embeddings()  # type: ignore[no-untyped-call]
    if not foreign.apart or not isinstance(head, nn.Linear) or head.bias is not None:
        return None
    generator = torch.Generator().manual_seed(0)
    states_2D = torch.randn(2, head.in_features, generator=generator).to(head.weight)
    own_2V, made_2V = foreign.logits(states_2D), product(states_2D, head.weight)
    same = own_2V.shape == made_2V.shape and torch.allclose(own_2V, made_2V, rtol=1e-4, atol=1e-5)
    return head.weight if same else None


@contextmanager
def _training(module: nn.Module, generator: torch.Generator) -> Iterator[None]:
    """Training mode, with a generator in place of the global one, from which transformers' layers draw."""
    cuda = generator.device.type == "cuda"
    devices = [generator.device] if cuda else []
    with torch.random.fork_rng(devices=devices):
        if cuda:
            torch.cuda.set_rng_state(generator.get_state(), generator.device)
        else:
            torch.set_rng_state(generator.get_state())
        module.train()
        try:
            yield
        finally:
            module.eval()
