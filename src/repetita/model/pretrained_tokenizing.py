"""The tokenizer of a model by somebody else, as reading a text needs it: its own ids."""

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from repetita.corpus.tokenizer import Encoded, PretrainedTokenizer
from repetita.errors import SpecError, first_line
from repetita.model.pretrained_files import PretrainedFiles

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


FILES = ("tokenizer.json", "vocab*", "*.model", "*.tiktoken", "tekken.json")
"""What tokenizers are kept in."""


class HfTokenizing:
    """See `corpus.reading_rule.Tokenizing`; `mask_id` is None for a causal model."""

    def __init__(self, tokenizer: "PreTrainedTokenizerFast", /, *, masked: bool, name: str) -> None:
        content = json.loads(tokenizer.backend_tokenizer.to_str())
        content |= {"truncation": None, "padding": None, "post_processor": None}
        text = json.dumps({"repetita": "hf", "tokenizer": content}, sort_keys=True, separators=(",", ":"))
        self._library, self._shifted = tokenizer, PretrainedTokenizer(text)
        self.bos_id, self.eos_id = _id(tokenizer.bos_token_id), _id(tokenizer.eos_token_id)
        self.mask_id = _id(tokenizer.mask_token_id) if masked else None
        if masked and self.mask_id is None:
            raise SpecError(
                f"{name} is a masked model whose tokenizer has no mask token; add one to its files"
            )
        # Behind a row of a causal model any id does, and its tokenizer's may have no row in the embedding.
        pad = _id(tokenizer.pad_token_id) if masked else 0
        if pad is None:
            raise SpecError(
                f"{name} is a masked model whose tokenizer has no padding token; add one to its files"
            )
        self.pad_id = pad
        self.before, self.behind = _around(tokenizer) if masked else ((), ())
        # The ids of a corpus of ours are moved up by one.
        self.token_bytes = self._shifted.token_bytes[1:]
        self.vocab_size = len(self.token_bytes)
        special = [self.bos_id, self.eos_id, self.mask_id, pad, self.before, self.behind]
        self.identity = hashlib.sha256(json.dumps([text, special]).encode()).hexdigest()

    def encode_all(self, texts: Sequence[str], /) -> list[Encoded]:
        """The ids of each text without special tokens; see `Tokenizing.encode_all`."""
        return [Encoded(ids - 1, starts) for ids, starts in self._shifted.encode_all(texts)]

    def decode(self, ids: Sequence[int], /) -> str:
        """The text of the ids, as the tokenizer has it, special tokens by their names."""
        text = self._library.decode(list(map(int, ids)), clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text


def open_tokenizing(files: PretrainedFiles, /, *, masked: bool) -> HfTokenizing:
    """The tokenizer that lies beside a model's weights; SpecError where there is none that is fast."""
    from transformers import AutoTokenizer

    # Without these the library makes up an empty tokenizer of the model's type.
    if files.gguf is None and not any(next(files.folder.glob(name), None) for name in FILES):
        raise SpecError(
            f"{files.name} has no tokenizer; put the tokenizer.json of its model beside its weights"
        )
    options: dict[str, Any] = {} if files.gguf is None else {"gguf_file": files.gguf}
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(files.folder), local_files_only=True, trust_remote_code=False, **options
        )
    except Exception as error:  # noqa: BLE001 - the library raises whatever the file makes it stumble over.
        raise SpecError(
            f"{files.name} has no tokenizer that can be read ({first_line(error)}); put the tokenizer.json "
            f"of its model beside its weights"
        ) from None
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise SpecError(
            f"the tokenizer of {files.name} is a slow one, which does not say where tokens begin; save "
            f"it as a fast one: transformers.AutoTokenizer.from_pretrained(...).save_pretrained(FOLDER)"
        )
    return HfTokenizing(cast("PreTrainedTokenizerFast", tokenizer), masked=masked, name=files.name)


def _around(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What the tokenizer puts before and behind a text."""
    encoded = tokenizer("a", return_special_tokens_mask=True)
    ids, special = np.array(encoded["input_ids"]), np.array(encoded["special_tokens_mask"], dtype=bool)
    text = np.flatnonzero(~special)
    if not len(text):  # The letter itself is unknown, and special.
        text = np.array([len(ids) // 2])
    return tuple(ids[: text[0]].tolist()), tuple(ids[text[-1] + 1 :].tolist())


def _id(value: Any) -> int | None:
    return value if isinstance(value, int) else None
