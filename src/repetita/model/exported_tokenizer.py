"""Our tokenizers as fast ones of transformers, and which of our ids each of their ids is."""

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from repetita.corpus.tokenizer import END_OF_TEXT, Tokenizer, byte_alphabet
from repetita.errors import SpecError
from repetita.model.config import ModelConfig

if TYPE_CHECKING:
    import tokenizers
    from transformers import PreTrainedTokenizerFast

Ints = NDArray[np.int64]

ABSENT = -1
"""The id of ours that a token has which only the exported tokenizer knows: padding apart from separators."""

SAMPLE = (
    f'Two  spaces,\ttabs\n\nand "quotes"; déjà vu, naïve, 東京 🙂 1234.5e-6 ##s <s> [MASK] {END_OF_TEXT}x'
)
"""What both tokenizers must agree on, but for the names of special tokens in a masked model's."""


class Exchange(NamedTuple):
    """A tokenizer of transformers and what its ids are here.

    Text has the ids that it has here, but for those of a tokenizer of Hugging Face (kind `hf`), which are the
    library's own again: one lower. `pad` is `start` in a causal model.
    """

    tokenizer: "PreTrainedTokenizerFast"
    ids: Ints
    """Our id of each exported id, shape (V',); ABSENT for padding that is no token of ours."""
    start: int
    """What our id 0 is: start token, separator, end of text."""
    pad: int
    mask: int | None


def exchange(tokenizer: Tokenizer, *, config: ModelConfig) -> Exchange:
    """The tokenizer for a model of this shape; ids of the model beyond the tokenizer's come last.

    A causal model's puts the start token before every text, which all rows here begin with, and takes the
    names of special tokens in a text for text, as ours does. A masked model's puts nothing before a text, and
    reads the names of special tokens as these, so that a text can hold the mask. Raises SpecError where
    transformers would encode text otherwise.
    """
    kind = json.loads(tokenizer.to_json()).get("repetita", "bpe")
    content = _content(tokenizer, kind)
    if config.objective == "causal":
        library, names = _causal(content, kind=kind)
    else:
        library, names = _masked(content, kind=kind, unknown=tokenizer.unknown)
    vocabulary = library.get_vocab(with_added_tokens=True)
    start, pad = vocabulary[names["eos_token"]], vocabulary[names["pad_token"]]
    ids = np.arange(max(vocabulary.values()) + 1, dtype=np.int64) + (kind == "hf")
    new = [at for at in (start, pad) if ids[at] >= tokenizer.vocab_size or kind != "hf"]
    ids[new], ids[start], mask = ABSENT, 0, None
    if config.objective == "masked":
        mask = vocabulary[names["mask_token"]]
        ids[mask] = config.vocab_size
    ids = np.concatenate([ids, np.arange(tokenizer.vocab_size, config.vocab_size)])
    found = Exchange(_fast(library, names, context=config.context), ids, start, pad, mask)
    _check(found, tokenizer, n_ids=config.n_ids)
    return found


def _content(tokenizer: Tokenizer, kind: str) -> dict[str, Any]:
    """A tokenizer.json; that of bytes is a vocabulary of the byte alphabet without merges."""
    if kind != "bytes":
        given: dict[str, Any] = json.loads(tokenizer.to_json())
        return dict(given["tokenizer"]) if kind == "hf" else given
    from tokenizers import Tokenizer as Library
    from tokenizers import decoders, models, pre_tokenizers

    vocabulary = {END_OF_TEXT: 0} | {symbol: byte + 1 for symbol, byte in byte_alphabet().items()}
    library = Library(models.BPE(vocabulary, []))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    library.decoder = decoders.ByteLevel()
    return dict(json.loads(library.to_str()))


def _library(content: dict[str, Any]) -> "tokenizers.Tokenizer":
    from tokenizers import Tokenizer as Library

    return Library.from_str(json.dumps(content, ensure_ascii=False))


def _causal(content: dict[str, Any], *, kind: str) -> tuple["tokenizers.Tokenizer", dict[str, str]]:
    """The library with the start token before every text, and what special tokens are called in it."""
    from tokenizers import AddedToken, processors

    library = _library(content)
    start = _free(END_OF_TEXT, library) if kind == "hf" else END_OF_TEXT
    library.add_special_tokens([AddedToken(start, normalized=False)])
    library.post_processor = processors.TemplateProcessing(
        single=f"{start} $A", pair=f"{start} $A $B", special_tokens=[(start, library.token_to_id(start))]
    )
    return library, dict.fromkeys(("bos_token", "eos_token", "pad_token"), start)


def _masked(
    content: dict[str, Any], *, kind: str, unknown: int | None
) -> tuple["tokenizers.Tokenizer", dict[str, str]]:
    """The library with a mask, and with padding apart from separators.

    RoBERTa counts positions from the id of the padding, and only over what is none. So separators cannot be
    padding, and the lower its id, the fewer positions are wasted: it takes over id 0, or in a library's own
    vocabulary the lowest special token that no text becomes.
    """
    from tokenizers import AddedToken

    pad = None
    if kind == "hf":
        added = sorted(content.get("added_tokens") or [], key=lambda token: int(token["id"]))
        spare = [token for token in added if token["special"] and token["id"] + 1 != unknown]
        pad = spare[0]["content"] if spare else None
    else:
        pad = _free("<pad>", _library(content))
        vocabulary = content["model"]["vocab"]
        content["model"]["vocab"] = {
            pad if symbol == END_OF_TEXT else symbol: at for symbol, at in vocabulary.items()
        }
    library = _library(content)
    end, mask = _free(END_OF_TEXT, library), _free("<mask>", library)
    pad = pad or _free("<pad>", library)
    library.add_special_tokens([AddedToken(name, normalized=False) for name in (end, mask, pad)])
    return library, {"eos_token": end, "mask_token": mask, "pad_token": pad}


def _free(name: str, library: "tokenizers.Tokenizer") -> str:
    """The name, numbered where it is taken."""
    taken, number, free = library.get_vocab(with_added_tokens=True), 1, name
    while free in taken:
        number += 1
        free = f"{name}{number}"
    return free


def _fast(
    library: "tokenizers.Tokenizer", names: dict[str, str], *, context: int
) -> "PreTrainedTokenizerFast":
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=library,
        model_max_length=context,
        split_special_tokens="mask_token" not in names,
        clean_up_tokenization_spaces=False,
        padding_side="right",
        **names,
    )


def _check(found: Exchange, tokenizer: Tokenizer, *, n_ids: int) -> None:
    """Raises SpecError where ids are missing or double, or a text is not what it was."""
    text = SAMPLE
    if found.mask is not None:
        for token in found.tokenizer.added_tokens_decoder.values():
            text = text.replace(str(token), "") if token.special else text
    theirs = found.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    whole = np.array_equal(np.sort(found.ids[found.ids != ABSENT]), np.arange(n_ids))
    if not whole or not np.array_equal(found.ids[theirs], tokenizer.encode(text)):
        raise SpecError(
            "the tokenizer of this run cannot be exported: a fast tokenizer of transformers would give text "
            "other ids; export a run whose tokenizer is of kind bytes or bpe"
        )
