"""Texts as the rows of a model that somebody else trained, by a stated rule of reading.

Shapes: B rows of a batch, S rows of all texts, L tokens of a row, n tokens of a text, V ids.
"""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from repetita.corpus.reading_rule import OfCorpus, ReadingRule, ResolvedRule, Tokenizing
from repetita.corpus.source import Document
from repetita.corpus.tokenized import token_counts
from repetita.corpus.tokenizer import Encoded
from repetita.errors import CorpusError
from repetita.spec import fingerprint
from repetita.subject import Rows

if TYPE_CHECKING:
    from repetita.corpus.window_words import WindowWords

__all__ = ["Document", "OfCorpus", "ReadingRule", "ResolvedRule", "Tokenizing", "Windows"]

Ints = NDArray[np.int64]

SEMANTICS = 1
"""Raised when the same rule and texts come to mean other rows."""


class ReadTexts:
    """Texts as ids, and what stands behind them; `Windows` cuts them into rows."""

    def __init__(
        self,
        texts: Sequence[Document],
        *,
        tokenizing: Tokenizing,
        rule: ReadingRule | None = None,
        context: int | None = None,
    ) -> None:
        if not texts:
            raise CorpusError("there is no text to read; give a file that holds one")
        self.texts, self.tokenizing, self.context = list(texts), tokenizing, context
        self.rule = rule or ReadingRule()
        self.reading = self.rule.resolve(tokenizing, context=context)
        encoded = tokenizing.encode_all([text.text for text in self.texts])
        self.n_tokens: Ints = np.array([len(one.ids) for one in encoded], dtype=np.int64)
        """Tokens of each text."""
        self._check_lengths()
        self._lead = 0 if self.reading.masked else len(self.reading.before)
        head = np.array(self.reading.before[: self._lead], dtype=np.int64)
        self._flat: Ints = np.concatenate(
            [part.astype(np.int64) for one in encoded for part in (head, one.ids)]
        )
        self._starts: Ints = np.cumsum(self.n_tokens + self._lead) - (self.n_tokens + self._lead)
        self._by_id = all(one.starts is None for one in encoded)
        sizes = [self._sizes(text.text, one) for text, one in zip(self.texts, encoded, strict=True)]
        self.given_back: NDArray[np.bool_] = np.array([bool(one.any()) for one in sizes])
        """Of each text whether its ids give it back, so that bytes stand behind its tokens."""
        self.lossless = bool(self.given_back.all())
        """Whether that holds of all of them."""
        none = np.zeros(self._lead, dtype=np.int64)
        each = np.concatenate([part for one in sizes for part in (none, one)])
        self._bytes_before: Ints = np.concatenate([np.zeros(1, np.int64), np.cumsum(each)])

    def ids(self, text: int, /) -> Ints:
        """The tokens of a text, special ones not among them, shape (n,)."""
        start = self._starts[text] + self._lead
        return self._flat[start : start + self.n_tokens[text]].copy()

    def stretches(self, texts: Ints, /, *, start: Ints, n: int) -> Ints:
        """n tokens of each of these texts from these tokens on, shape (N, n); all of them are to be there."""
        first = self._starts[texts] + self._lead + start
        return np.asarray(self._flat[first[:, None] + np.arange(n)])

    def encode(self, text: str, /) -> Ints:
        """The ids of any text, shape (n,), special ones not among them; id 0 is an id like any other."""
        return self.tokenizing.encode_all([text])[0].ids.astype(np.int64)

    def scored_bytes(self, rows: Rows, /) -> Ints:
        """Bytes behind the scored targets of any rows by their ids alone, shape (B,).

        0 where an id does not stand for the same bytes everywhere in these texts, as where a tokenizer puts a
        space before a text; of rows of the texts themselves `Windows.n_bytes` knows them.
        """
        sizes = self.tokenizing.token_bytes[rows.targets] if self._by_id else np.zeros_like(rows.targets)
        return np.asarray(np.where(rows.scored, sizes, 0).sum(axis=1))

    def token_spans(self, text: int, /) -> tuple[Ints, Ints]:
        """Where each token of a text begins and ends in its UTF-8, each (n,); CorpusError where ids and text
        do not give each other back."""
        if not self.given_back[text]:
            raise CorpusError(
                f"the tokenizer does not give back the text '{self.texts[text].name}', so that its tokens "
                f"have no place in it; leave out what asks for one"
            )
        first = self._starts[text] + self._lead
        edges = self._bytes_before[first : first + self.n_tokens[text] + 1]
        return edges[:-1] - edges[0], edges[1:] - edges[0]

    @cached_property
    def fingerprint(self) -> str:
        """Identity of the rows: the texts' content, the tokenizer's, and the rule as it came to be."""
        hashes = [hashlib.sha256(text.text.encode()).hexdigest() for text in self.texts]
        read: dict[str, Any] = self.reading._asdict()
        return fingerprint(
            {"semantics": SEMANTICS, "texts": hashes, "tokenizer": self.tokenizing.identity, "rule": read}
        )

    def _check_lengths(self) -> None:
        most = self.reading.most_tokens
        for text, n in zip(self.texts, self.n_tokens.tolist(), strict=True):
            if n == 0:
                raise CorpusError(f"the text '{text.name}' is empty; leave it out")
            if n > most and self.reading.longer == "refuse":
                raise CorpusError(
                    f"the text '{text.name}' has {n} tokens and the rule refuses more than {most}; cut it, "
                    f"or read it in windows (stride 'disjoint')"
                )

    def _sizes(self, text: str, one: Encoded) -> Ints:
        """Bytes behind each token of a text, from where its tokens begin unless ids say so; 0 for all where
        the ids do not give it back."""
        if one.starts is None:
            return np.asarray(self.tokenizing.token_bytes[one.ids], dtype=np.int64)
        # SentencePiece puts a space before a text and takes it for one that was there.
        if self.tokenizing.decode(one.ids.tolist()).lstrip(" ") != text.lstrip(" "):
            return np.zeros(len(one.ids), dtype=np.int64)
        width = np.fromiter((len(character.encode()) for character in text), np.int64, count=len(text))
        ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(width)])
        edges = np.append(ends[one.starts], ends[-1])
        # What stands before the first token, white space that is not encoded, belongs to it.
        edges[0] = 0
        return np.diff(edges)


class Windows(ReadTexts):
    """Texts as rows of at most `reading.window` tokens: the `Sequences` of every probe, by a rule of reading.

    Every token of a text is scored in exactly one row, but for the first of a text that is not. Rows are in
    the order of the texts. A row that is not full ends in `pad_id`.
    Raises CorpusError for no text, a text without a token, and one too long where the rule refuses it.
    """

    def __init__(
        self,
        texts: Sequence[Document],
        *,
        tokenizing: Tokenizing,
        rule: ReadingRule | None = None,
        context: int | None = None,
    ) -> None:
        super().__init__(texts, tokenizing=tokenizing, rule=rule, context=context)
        reading = self.reading
        # One more token is in the stream than a causal model has targets: the first is only read.
        self._shift = 0 if reading.masked else 1
        self._n_targets: Ints = self.n_tokens + self._lead - self._shift
        self._table = _table(self._n_targets, reading=reading)
        around = len(reading.before) + len(reading.behind) if reading.masked else 0
        self.length = max(1, int((self._table.stop - self._table.start).max()) + around)

    def __len__(self) -> int:
        return len(self._table.text)

    def rows(self, indices: Ints, /) -> Rows:
        """Rows as the model reads them, arrays of shape (B, L); IndexError outside 0 .. S - 1."""
        table = self._at(indices)
        before = len(self.reading.before) if self.reading.masked else 0
        place = np.arange(self.length, dtype=np.int64) - before
        inside = (place >= 0) & (place < (table.stop - table.start)[:, None])
        at = np.where(inside, (self._starts[table.text] + table.start)[:, None] + place, 0)
        pad = self.tokenizing.pad_id
        targets = np.where(inside, self._flat[at + self._shift * inside], pad)
        scored = inside & (place >= (table.scored - table.start)[:, None])
        if not self.reading.masked:
            tokens = np.where(inside, self._flat[at], pad)
            # A text of one token that nothing stands before is read, though nothing follows it.
            single = self._n_targets[table.text] == 0
            tokens[single, 0] = self._flat[self._starts[table.text[single]]]
            return Rows(tokens, targets, scored)
        targets[:, :before] = self.reading.before
        ends = (before + table.stop - table.start)[:, None] + np.arange(len(self.reading.behind))
        np.put_along_axis(targets, ends, np.array([self.reading.behind], dtype=np.int64), axis=1)
        return Rows(targets.copy(), targets, scored)

    def document(self, indices: Ints | None = None, /) -> Ints:
        """Place in `texts` of the text that each row is from, shape (B,); of all rows without indices."""
        return self._table.text if indices is None else self._at(indices).text

    def offset(self, indices: Ints | None = None, /) -> Ints:
        """Tokens of its text before the first scored target of each row, shape (B,)."""
        table = self._table if indices is None else self._at(indices)
        return np.asarray(table.scored + self._shift - self._lead)

    def n_bytes(self, indices: Ints, /) -> Ints:
        """Bytes of UTF-8 behind the scored targets of each row, shape (B,); 0 in a text not given back.

        Every byte of a text is of exactly one token, so that they add up to the text.
        """
        table = self._at(indices)
        first, before = self._starts[table.text] + self._shift, self._bytes_before
        return np.asarray(before[first + table.stop] - before[first + table.scored])

    def token_counts(self) -> Ints:
        """How often each id is scored in all texts, shape (V,)."""
        return token_counts(self, vocab_size=self.tokenizing.vocab_size)

    def tags(self, indices: Ints, /) -> NDArray[np.int8]:  # noqa: ARG002
        """Raises CorpusError: texts that were only read have no parts of speech."""
        raise CorpusError(
            "these texts have no parts of speech; build a corpus of them with `repetita corpus build` and "
            "tag it"
        )

    @cached_property
    def words(self) -> "WindowWords":
        """The words behind the tokens, tagged when they are first asked for."""
        from repetita.corpus.window_words import WindowWords

        return WindowWords(self)

    def places(self, indices: Ints, /) -> Ints:
        """Which token of its text each target of these rows is, shape (B, L); -1 for one of no text."""
        table = self._at(indices)
        before = len(self.reading.before) if self.reading.masked else 0
        place = np.arange(self.length, dtype=np.int64) - before
        inside = (place >= 0) & (place < (table.stop - table.start)[:, None])
        token = table.start[:, None] + place + self._shift - self._lead
        return np.where(inside & (token >= 0), token, -1)

    def lowered(self, texts: Ints | None = None, /) -> "Windows":
        """The same texts, or those of these places, in lower case, read by the same rule.

        One that only becomes too long by that is not refused: it is read in windows.
        """
        chosen = self.texts if texts is None else [self.texts[text] for text in texts.tolist()]
        lower = [text._replace(text=text.text.lower()) for text in chosen]
        rule = self.rule.edit(stride="disjoint") if self.rule.stride == "refuse" else self.rule
        return Windows(lower, tokenizing=self.tokenizing, rule=rule, context=self.context)

    def _at(self, indices: Ints) -> "_Table":
        if indices.size and (indices.min() < 0 or indices.max() >= len(self)):
            raise IndexError(f"an index outside the {len(self)} rows of these texts")
        return self._table.at(indices)


class _Table(NamedTuple):
    """Rows, in targets of their text: which are read, and from which on they are scored; each (S,)."""

    text: Ints
    start: Ints
    stop: Ints
    scored: Ints

    def at(self, indices: Ints) -> "_Table":
        return _Table(*(column[indices] for column in self))


def _table(n_targets: Ints, *, reading: ResolvedRule) -> _Table:
    """The windows of texts of so many targets each."""
    size = reading.text_tokens
    rest = np.maximum(n_targets - size, 0)
    n_rows = 1 + -(-rest // reading.stride)
    text = np.repeat(np.arange(len(n_targets)), n_rows)
    number = np.arange(len(text)) - np.repeat(np.cumsum(n_rows) - n_rows, n_rows)
    stop = np.minimum(size + number * reading.stride, n_targets[text])
    scored = np.where(number == 0, 0, size + (number - 1) * reading.stride)
    if not reading.masked and reading.before and not reading.first_scored:
        scored = np.maximum(scored, 1)
    return _Table(text, np.maximum(stop - size, 0), stop, np.minimum(scored, stop))
