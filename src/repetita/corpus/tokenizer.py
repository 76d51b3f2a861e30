"""Text to token ids and back: bytes, or a byte-level BPE trained on the corpus itself."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from repetita.errors import CorpusError, SpecError
from repetita.spec import Spec

BYTES_VOCAB_SIZE = 257
"""Id 0 and the 256 bytes; a BPE starts from the same alphabet."""

END_OF_TEXT = "<|endoftext|>"
"""Name of id 0. The string itself, when it occurs in a text, is encoded like any other characters."""

PIECE = 1 << 16
"""Characters encoded at a time at least; longer texts are cut where no token can cross."""

if TYPE_CHECKING:
    import tokenizers

Ids = NDArray[np.int32]


class TokenizerSpec(Spec):
    """How text becomes ids. Id 0 is always `<|endoftext|>`: start token, separator and padding.

    `bytes` has 257 ids (id = byte + 1). `bpe` is a byte-level BPE of `vocab_size` ids trained on the
    corpus. Both are lossless on every UTF-8 text, and no text encodes to id 0.
    """

    kind: Literal["bytes", "bpe"] = "bpe"
    vocab_size: int = Field(default=1024, ge=BYTES_VOCAB_SIZE, le=2**31 - 1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.kind == "bytes" and self.vocab_size != BYTES_VOCAB_SIZE:
            if "vocab_size" in self.model_fields_set:
                raise SpecError(
                    f"TokenizerSpec: kind 'bytes' has {BYTES_VOCAB_SIZE} ids, not {self.vocab_size}; leave "
                    f"vocab_size out or use kind 'bpe'"
                )
            object.__setattr__(self, "vocab_size", BYTES_VOCAB_SIZE)
        return self


class Tokenizer(Protocol):
    """Lossless: `decode(encode(text)) == text`, and the bytes of the ids add up to those of the text."""

    @property
    def vocab_size(self) -> int:
        """V; ids are 0 .. V - 1."""
        ...

    @property
    def token_bytes(self) -> NDArray[np.int64]:
        """UTF-8 bytes that each id stands for, shape (V,); 0 for id 0."""
        ...

    def encode(self, text: str) -> Ids:
        """Ids of a text, shape (n,); never id 0."""
        ...

    def encode_all(self, texts: Sequence[str]) -> list[Ids]:
        """`encode` of each text."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids; id 0 stands for nothing, bytes that are not UTF-8 become U+FFFD."""
        ...

    def to_json(self) -> str:
        """What `load_tokenizer` reads."""
        ...


class ByteTokenizer:
    """Every byte is one id: id = byte + 1."""

    vocab_size = BYTES_VOCAB_SIZE
    token_bytes: NDArray[np.int64] = np.array([0] + [1] * 256, dtype=np.int64)

    def encode(self, text: str) -> Ids:
        """See `Tokenizer.encode`."""
        return np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int32) + 1

    def encode_all(self, texts: Sequence[str]) -> list[Ids]:
        """See `Tokenizer.encode_all`."""
        return [self.encode(text) for text in texts]

    def decode(self, ids: Iterable[int]) -> str:
        """See `Tokenizer.decode`."""
        return bytes(i - 1 for i in map(int, ids) if i).decode("utf-8", errors="replace")

    def to_json(self) -> str:
        """See `Tokenizer.to_json`."""
        return json.dumps({"repetita": "bytes"})


class BPETokenizer:
    """A byte-level BPE in the format of the `tokenizers` library, with GPT-2's way of cutting words.

    Id 0 is in the vocabulary but is not a special token of the library, so that no text yields it.
    """

    def __init__(self, text: str) -> None:
        from tokenizers import Tokenizer as Library

        self._json = text
        self._library: tokenizers.Tokenizer = Library.from_str(text)
        self.vocab_size: int = self._library.get_vocab_size()
        symbols = {token_id: symbol for symbol, token_id in self._library.get_vocab().items()}
        # In the library's alphabet every character stands for one byte.
        self.token_bytes = np.array([len(symbols[i]) for i in range(self.vocab_size)], dtype=np.int64)
        self.token_bytes[0] = 0

    def encode(self, text: str) -> Ids:
        """See `Tokenizer.encode`."""
        return self.encode_all([text])[0]

    def encode_all(self, texts: Sequence[str]) -> list[Ids]:
        """See `Tokenizer.encode_all`; on all cores that the library takes."""
        pieces = [list(_pieces(text)) for text in texts]
        flat = [piece for of_text in pieces for piece in of_text]
        encoded = [np.array(e.ids, dtype=np.int32) for e in self._library.encode_batch_fast(flat)]
        empty, at, result = np.zeros(0, dtype=np.int32), 0, []
        for of_text in pieces:
            result.append(np.concatenate([empty, *encoded[at : at + len(of_text)]]))
            at += len(of_text)
        return result

    def decode(self, ids: Iterable[int]) -> str:
        """See `Tokenizer.decode`."""
        return str(self._library.decode([i for i in map(int, ids) if i]))

    def to_json(self) -> str:
        """See `Tokenizer.to_json`; the `tokenizers` library reads it too."""
        return self._json


def train_tokenizer(spec: TokenizerSpec, *, texts: Iterable[str]) -> Tokenizer:
    """The tokenizer of a spec; a BPE is trained on `texts` and depends on nothing else.

    Raises CorpusError when the texts are too few for `vocab_size` ids.
    """
    if spec.kind == "bytes":
        return ByteTokenizer()
    from tokenizers import Tokenizer as Library
    from tokenizers import decoders, models, pre_tokenizers, trainers

    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=spec.vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    library.train_from_iterator((piece for text in texts for piece in _pieces(text)), trainer=trainer)
    if library.get_vocab_size() != spec.vocab_size:
        raise CorpusError(
            f"the text yields {library.get_vocab_size()} tokens, not the vocab_size of {spec.vocab_size}; "
            f"lower it to {library.get_vocab_size()}, or give more text"
        )
    trained: dict[str, Any] = json.loads(library.to_str())
    trained["added_tokens"] = []
    return BPETokenizer(json.dumps(trained, ensure_ascii=False, sort_keys=True))


def load_tokenizer(text: str) -> Tokenizer:
    """The tokenizer that `to_json` wrote."""
    return ByteTokenizer() if json.loads(text).get("repetita") == "bytes" else BPETokenizer(text)


def _pieces(text: str) -> Iterator[str]:
    """The text in pieces of about PIECE characters that encode as they would together.

    GPT-2's pattern always ends a word where white space follows something else, and what it makes of
    the rest does not depend on what came before.
    """
    start = 0
    while len(text) - start > PIECE:
        cut = start + PIECE
        while cut < len(text) and not (text[cut] in " \n" and not text[cut - 1].isspace()):
            cut += 1
        yield text[start:cut]
        start = cut
    if start < len(text):
        yield text[start:]
