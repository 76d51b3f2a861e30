"""Text to token ids and back: bytes, or a byte-level BPE trained on the corpus itself."""

from typing import Literal, Self

from pydantic import Field, model_validator

from repetita.errors import SpecError
from repetita.spec import Spec

BYTES_VOCAB_SIZE = 257
"""Id 0 and the 256 bytes; a BPE starts from the same alphabet."""


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
