"""Text to token ids and back: bytes, a byte-level BPE trained on the corpus, or a Hugging Face tokenizer."""

import json
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from repetita.corpus.training_text import TrainingText
from repetita.errors import CorpusError, SpecError
from repetita.spec import Spec, introduced

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
    corpus. `hf` is any fast tokenizer of Hugging Face: `source` is a tokenizer.json, a folder that holds one,
    or `hf:NAME[@REVISION]` on the hub. Its ids are moved up by one (id = the library's + 1), so that
    `vocab_size` is the library's size, added tokens included, + 1; `hf_tokenizer_spec` fills it in. No text
    encodes to id 0, and the names of special tokens in a text are text like any other.

    `trained_on` is the text that a `bpe` is trained on where that is not the corpus itself, so that one
    model can read both; `CorpusSpec.with_ids_of` fills it in.
    """

    kind: Literal["bytes", "bpe", "hf"] = "bpe"
    vocab_size: int = Field(default=1024, ge=2, le=2**31 - 1)
    source: str | None = introduced(None)
    trained_on: TrainingText | None = introduced(None)

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = "vocab_size" in self.model_fields_set
        if self.source is not None and self.kind != "hf":
            raise SpecError(
                f"TokenizerSpec: source = '{self.source}' has no effect on kind '{self.kind}'; leave it out "
                f"or use kind 'hf'"
            )
        if self.trained_on is not None and self.kind != "bpe":
            raise SpecError(
                f"TokenizerSpec: trained_on has no effect on kind '{self.kind}', which is not trained; leave "
                f"it out or use kind 'bpe'"
            )
        if self.kind == "hf" and not (given and self.source):
            raise SpecError(
                f"TokenizerSpec: kind 'hf' lacks its {'vocab_size' if self.source else 'source'}; write "
                f"hf_tokenizer_spec(SOURCE), which fills in both"
            )
        if self.kind == "bpe" and self.vocab_size < BYTES_VOCAB_SIZE:
            raise SpecError(
                f"TokenizerSpec: vocab_size = {self.vocab_size} is below the {BYTES_VOCAB_SIZE} that a "
                f"byte-level BPE begins with; raise it"
            )
        if self.kind == "bytes" and self.vocab_size != BYTES_VOCAB_SIZE:
            if given:
                raise SpecError(
                    f"TokenizerSpec: kind 'bytes' has {BYTES_VOCAB_SIZE} ids, not {self.vocab_size}; leave "
                    f"vocab_size out or use kind 'bpe'"
                )
            object.__setattr__(self, "vocab_size", BYTES_VOCAB_SIZE)
        return self


class Encoded(NamedTuple):
    """The ids of a text, and where its tokens begin when their bytes do not say so."""

    ids: Ids
    """Shape (n,), never 0."""
    starts: NDArray[np.int64] | None = None
    """Character at which each token begins, shape (n,); None where the bytes of the ids are the text's."""


class Tokenizer(Protocol):
    """Ids of texts and texts of ids; a lossless one has `decode(encode(text)) == text`."""

    @property
    def vocab_size(self) -> int:
        """V; ids are 0 .. V - 1."""
        ...

    @property
    def token_bytes(self) -> NDArray[np.int64]:
        """UTF-8 bytes that each id stands for, shape (V,); 0 for id 0, and for all of a lossy tokenizer."""
        ...

    @property
    def unknown(self) -> int | None:
        """The id of what the vocabulary lacks; None where it lacks nothing."""
        ...

    def encode(self, text: str) -> Ids:
        """Ids of a text, shape (n,); never id 0."""
        ...

    def encode_all(self, texts: Sequence[str]) -> list[Encoded]:
        """The ids of each text, and where its tokens begin if it is found not to be encoded without loss."""
        ...

    def separable(self, left: str, right: str) -> bool:
        """Whether a text cut between these neighbours encodes as it would in one piece."""
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
    unknown: int | None = None

    def encode(self, text: str) -> Ids:
        """See `Tokenizer.encode`."""
        return np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int32) + 1

    def encode_all(self, texts: Sequence[str]) -> list[Encoded]:
        """See `Tokenizer.encode_all`."""
        return [Encoded(self.encode(text)) for text in texts]

    def separable(self, left: str, right: str) -> bool:  # noqa: ARG002
        """See `Tokenizer.separable`."""
        return True

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

    unknown: int | None = None

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
        return self.encode_all([text])[0].ids

    def encode_all(self, texts: Sequence[str]) -> list[Encoded]:
        """See `Tokenizer.encode_all`; on all cores that the library takes."""
        pieces = [list(_pieces(text)) for text in texts]
        flat = [piece for of_text in pieces for piece in of_text]
        encoded = [np.array(e.ids, dtype=np.int32) for e in self._library.encode_batch_fast(flat)]
        empty, at, result = np.zeros(0, dtype=np.int32), 0, []
        for of_text in pieces:
            result.append(Encoded(np.concatenate([empty, *encoded[at : at + len(of_text)]])))
            at += len(of_text)
        return result

    def separable(self, left: str, right: str) -> bool:
        """See `Tokenizer.separable`; see `_pieces` for the reason."""
        return not left[-1:].isspace() and right[:1] in {" ", "\n"}

    def decode(self, ids: Iterable[int]) -> str:
        """See `Tokenizer.decode`."""
        return str(self._library.decode([i for i in map(int, ids) if i]))

    def to_json(self) -> str:
        """See `Tokenizer.to_json`; the `tokenizers` library reads it too."""
        return self._json


class PretrainedTokenizer:
    """Any tokenizer of the `tokenizers` library, its ids moved up by one to make room for id 0.

    Whether it loses anything is found on the texts themselves: the bytes of the tokens are compared with
    those of the text. `lossless` says what was found on a corpus; where it is False no id stands for a
    fixed number of bytes.
    """

    def __init__(self, text: str, *, lossless: bool = True) -> None:
        from tokenizers import Tokenizer as Library

        self._json = text
        self._lossless = lossless
        content: dict[str, Any] = json.loads(text)["tokenizer"]
        self._library: tokenizers.Tokenizer = Library.from_str(json.dumps(content, ensure_ascii=False))
        self._library.encode_special_tokens = True
        self._table = _bytes_of_ids(self._library, content)
        self.vocab_size = len(self._table) + 1
        self.token_bytes = np.zeros(self.vocab_size, dtype=np.int64)
        if lossless:
            self.token_bytes[1:] = [len(symbol) for symbol in self._table]
        self.unknown: int | None = _unknown(self._library, content["model"])
        self._offsets_needed = not lossless

    def encode(self, text: str) -> Ids:
        """See `Tokenizer.encode`."""
        return np.array(self._library.encode(text, add_special_tokens=False).ids, dtype=np.int32) + 1

    def encode_all(self, texts: Sequence[str]) -> list[Encoded]:
        """See `Tokenizer.encode_all`; on all cores that the library takes."""
        # Without places it is half again as fast; a tokenizer that lost something once will do so again.
        encode = self._library.encode_batch if self._offsets_needed else self._library.encode_batch_fast
        result = []
        for text, encoding in zip(texts, encode(list(texts), add_special_tokens=False), strict=True):
            ids = encoding.ids
            starts = None
            if b"".join(map(self._table.__getitem__, ids)) != text.encode():
                if not self._offsets_needed:
                    encoding = self._library.encode(text, add_special_tokens=False)
                first = np.fromiter((start for start, _ in encoding.offsets), dtype=np.int64, count=len(ids))
                starts = np.maximum.accumulate(first)
            result.append(Encoded(np.array(ids, dtype=np.int32) + 1, starts))
        self._offsets_needed |= any(one.starts is not None for one in result)
        return result

    def separable(self, left: str, right: str) -> bool:
        """See `Tokenizer.separable`; found out by encoding them, since nothing is known of the pattern."""
        whole, one, other = (self.encode(text) for text in (left + right, left, right))
        return np.array_equal(whole, np.concatenate([one, other]))

    def decode(self, ids: Iterable[int]) -> str:
        """See `Tokenizer.decode`; one that is not lossless decodes as its library does."""
        known = [i - 1 for i in map(int, ids) if i]
        if self._lossless:
            return b"".join(map(self._table.__getitem__, known)).decode("utf-8", errors="replace")
        return str(self._library.decode(known, skip_special_tokens=False))

    def to_json(self) -> str:
        """See `Tokenizer.to_json`."""
        return self._json


def train_tokenizer(spec: TokenizerSpec, *, texts: Iterable[str]) -> Tokenizer:
    """The tokenizer of a spec of kind `bytes` or `bpe`, which is trained on `texts` and nothing else.

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


def load_tokenizer(text: str, *, lossless: bool = True) -> Tokenizer:
    """The tokenizer that `to_json` wrote; `lossless` says what was found on the corpus that it comes from."""
    match json.loads(text).get("repetita"):
        case "bytes":
            return ByteTokenizer()
        case "hf":
            return PretrainedTokenizer(text, lossless=lossless)
        case _:
            return BPETokenizer(text)


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


def _bytes_of_ids(library: "tokenizers.Tokenizer", content: dict[str, Any]) -> list[bytes]:
    """The bytes that each of the library's ids stands for if it loses nothing; unused ids stand for none.

    Symbols are in the alphabet of byte-level tokenizers where all of them can be, else they are the text.
    """
    added = {token["id"] for token in content.get("added_tokens", [])}
    symbols: dict[int, str] = {i: symbol for symbol, i in library.get_vocab(with_added_tokens=True).items()}
    alphabet = byte_alphabet()
    spelt = alphabet.keys() >= set("".join(symbol for i, symbol in symbols.items() if i not in added))
    table = [b""] * (max(symbols, default=-1) + 1)
    for i, symbol in symbols.items():
        table[i] = bytes(map(alphabet.__getitem__, symbol)) if spelt and i not in added else symbol.encode()
    return table


@cache
def byte_alphabet() -> dict[str, int]:
    """The byte that each character of a byte-level vocabulary stands for.

    Printable bytes are themselves, the other 68 are the characters from U+0100 on (Radford et al. 2019, the
    code of GPT-2).
    """
    printed = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printed]
    return {chr(byte): byte for byte in printed} | {chr(256 + i): byte for i, byte in enumerate(others)}


def _unknown(library: "tokenizers.Tokenizer", model: dict[str, Any]) -> int | None:
    found = model.get("unk_id")
    if found is None and model.get("unk_token") is not None:
        found = library.token_to_id(model["unk_token"])
    return None if found is None else int(found) + 1
