"""How a text is read for a model that somebody else trained: the rule, and what its tokenizer must tell."""

import hashlib
from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from repetita.corpus.tokenizer import Encoded, Tokenizer
from repetita.errors import SpecError
from repetita.spec import Spec

Ints = NDArray[np.int64]
Start = Literal["auto", "always", "never", "eos"]


class Tokenizing(Protocol):
    """What reading a text for a model needs of its tokenizer; ids are those that the model itself knows.

    A text is encoded without special tokens, and a special token's name in a text is text like any other.
    """

    @property
    def vocab_size(self) -> int:
        """V; ids are 0 .. V - 1."""
        ...

    @property
    def bos_id(self) -> int | None:
        """The token that begins a text; None where the tokenizer has none."""
        ...

    @property
    def eos_id(self) -> int | None:
        """The token that ends a text; None where the tokenizer has none."""
        ...

    @property
    def mask_id(self) -> int | None:
        """As of the subject: None for a causal model, whatever its tokenizer has."""
        ...

    @property
    def pad_id(self) -> int:
        """What fills up rows. A masked model is to leave it out of its attention, so that it is no text's."""
        ...

    @property
    def before(self) -> tuple[int, ...]:
        """What the tokenizer of a masked model puts before a text, such as [CLS]."""
        ...

    @property
    def behind(self) -> tuple[int, ...]:
        """What it puts behind a text, such as [SEP]."""
        ...

    @property
    def token_bytes(self) -> Ints:
        """Bytes of UTF-8 that each id stands for inside a text, shape (V,); 0 for all where it is no
        fixed number."""
        ...

    @property
    def identity(self) -> str:
        """A hash of its content: tokenizers that encode differently differ in it."""
        ...

    def encode_all(self, texts: Sequence[str], /) -> list[Encoded]:
        """The ids of each text, uncut; with `starts` unless the bytes of the ids are those of the text."""
        ...

    def decode(self, ids: Sequence[int], /) -> str:
        """The text of the ids, as the tokenizer has it."""
        ...


class OfCorpus:
    """A tokenizer of a corpus of ours, so that a run of ours can be asked about any text."""

    bos_id = eos_id = 0
    pad_id = 0
    before: tuple[int, ...] = ()
    behind: tuple[int, ...] = ()

    def __init__(self, tokenizer: Tokenizer, /, *, mask_id: int | None = None) -> None:
        self._tokenizer, self.mask_id = tokenizer, mask_id
        self.vocab_size, self.token_bytes = tokenizer.vocab_size, tokenizer.token_bytes
        self.identity = hashlib.sha256(tokenizer.to_json().encode()).hexdigest()

    def encode_all(self, texts: Sequence[str], /) -> list[Encoded]:
        """See `Tokenizing.encode_all`."""
        return self._tokenizer.encode_all(texts)

    def decode(self, ids: Sequence[int], /) -> str:
        """See `Tokenizing.decode`."""
        return self._tokenizer.decode(ids)


class ResolvedRule(NamedTuple):
    """A rule as it came to be for one tokenizer and one context; part of the key of every result."""

    masked: bool
    before: tuple[int, ...]
    """What is read before a window's text: of a causal model the start token, of the first window only."""
    behind: tuple[int, ...]
    window: int
    """Tokens that are read at once, special ones among them."""
    stride: int
    """Tokens that each window after the first scores at most; what is left of it is context."""
    longer: Literal["windows", "refuse"]
    first_scored: bool

    @property
    def text_tokens(self) -> int:
        """Tokens of text that a window scores at most."""
        return self.window - (len(self.before) + len(self.behind) if self.masked else 0)

    @property
    def most_tokens(self) -> int:
        """Tokens of the longest text that is read in one window."""
        return self.text_tokens + (not self.masked and not self.before)

    @property
    def text(self) -> str:
        """The rule in a sentence, as it is printed beside results."""
        ids = ", ".join(map(str, self.before))
        if self.masked:
            around = f"between the special tokens {self.before} and {self.behind}, never scored"
            start = around if self.before or self.behind else "without special tokens"
        else:
            start = f"behind the start token {ids}" if self.before else "without a start token"
            start += f", first token {'scored' if self.first_scored else 'not scored'}"
        if self.longer == "refuse":
            return f"texts of at most {self.most_tokens} tokens, {start}"
        new = f"{self.stride} new tokens each" + (", the last one filled up with what stands before it")
        return f"windows of {self.window} tokens, {new}, {start}"


class ReadingRule(Spec):
    """How a text becomes what a model reads. All of it changes the numbers, so results name it.

    `bos`: the token before a text. `auto` is the tokenizer's own where it has one; `always` is an error where
    it has none; `eos` is the end-of-text token, as lm-evaluation-harness does for tokenizers without a BOS.
    A masked model has the special tokens of its tokenizer around each window (auto, always), or none (never).
    `window`: tokens read at once, by default the model's context. `stride`: a text that is longer is read in
    windows that each score `stride` new tokens. `disjoint` scores as many as are read: a causal window reads
    only the last token of the one before, and the last window is moved back until it is full, as in the
    rolling perplexity of lm-evaluation-harness. `refuse` makes a longer text an error.
    `first_token`: whether the first token of a text is scored, which only a start token makes possible.

    >>> from repetita.corpus.windows import ReadingRule
    >>> ReadingRule(window=512, stride=256).stride
    256
    """

    bos: Start = "auto"
    window: int | None = Field(default=None, ge=2)
    stride: PositiveInt | Literal["disjoint", "refuse"] = "disjoint"
    first_token: Literal["auto", "scored", "skipped"] = "auto"

    def resolve(self, tokenizing: Tokenizing, /, *, context: int | None) -> ResolvedRule:
        """What it comes to; `context` is the most that the model reads, None where nothing limits it.

        Raises SpecError where the rule asks for what tokenizer or model lack, or has no effect.
        """
        window = context if self.window is None else self.window
        if window is None:
            raise SpecError("ReadingRule: this model has no longest context; give a window in tokens")
        if context is not None and window > context:
            raise SpecError(
                f"ReadingRule: window = {window} is more than the {context} tokens that this model reads; "
                f"lower it to {context}"
            )
        masked = tokenizing.mask_id is not None
        before, behind = self._around(tokenizing) if masked else (self._start(tokenizing), ())
        new = window - len(before) - len(behind) if masked else window
        if new < 1:
            raise SpecError(
                f"ReadingRule: window = {window} holds no text beside the special tokens; raise it"
            )
        stride = self.stride if isinstance(self.stride, int) else new
        if stride > new:
            raise SpecError(
                f"ReadingRule: stride = {stride} is more than the {new} tokens of text that a window scores; "
                f"lower it to {new}"
            )
        if self.first_token == "scored" and not (masked or before):
            raise SpecError(
                "ReadingRule: without a start token the first token of a text cannot be scored; set "
                "first_token to 'auto' or bos to 'eos'"
            )
        first = masked or (bool(before) and self.first_token != "skipped")
        longer: Literal["windows", "refuse"] = "refuse" if self.stride == "refuse" else "windows"
        return ResolvedRule(masked, before, behind, window, stride, longer, first)

    def _start(self, tokenizing: Tokenizing) -> tuple[int, ...]:
        found = tokenizing.eos_id if self.bos == "eos" else tokenizing.bos_id
        if self.bos == "never" or (self.bos == "auto" and found is None):
            return ()
        if found is None:
            what, other = ("end-of-text", "'never'") if self.bos == "eos" else ("start", "'eos' or 'never'")
            raise SpecError(
                f"ReadingRule: bos = '{self.bos}' and this tokenizer has no {what} token; set bos to {other}"
            )
        return (found,)

    def _around(self, tokenizing: Tokenizing) -> tuple[tuple[int, ...], tuple[int, ...]]:
        if self.first_token == "skipped" or self.bos == "eos":
            field = "bos = 'eos'" if self.bos == "eos" else "first_token = 'skipped'"
            raise SpecError(f"ReadingRule: {field} has no effect on a masked model; set it to 'auto'")
        if self.bos == "always" and not (tokenizing.before or tokenizing.behind):
            raise SpecError(
                "ReadingRule: bos = 'always' and this tokenizer puts no special tokens around a text; set "
                "bos to 'auto'"
            )
        return ((), ()) if self.bos == "never" else (tokenizing.before, tokenizing.behind)
