"""Texts become rows by the rule: each token scored once, as in a rolling perplexity."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repetita.corpus.masking import measuring_masks
from repetita.corpus.reading_rule import OfCorpus, ReadingRule
from repetita.corpus.source import Document
from repetita.corpus.tokenizer import ByteTokenizer, Encoded
from repetita.corpus.windows import Windows
from repetita.errors import CorpusError, SpecError
from repetita.measure.induction import random_tokens
from repetita.measure.memorization import ScoreProbe
from repetita.measure.planted import BigramSubject, UniformSubject
from repetita.measure.probe import EvalSet

BOS, EOS, MASK, CLS, SEP, PAD = 300, 301, 302, 303, 304, 305


class Bytes:
    """Ids are bytes, 0 among them; special tokens lie above."""

    vocab_size = 306
    token_bytes = np.r_[np.ones(256, np.int64), np.zeros(50, np.int64)]
    pad_id = PAD
    identity = "bytes"

    def __init__(
        self, *, bos: int | None = BOS, eos: int | None = EOS, mask: int | None = None, around: bool = True
    ) -> None:
        self.bos_id, self.eos_id, self.mask_id = bos, eos, mask
        self.before: tuple[int, ...] = (CLS,) if around else ()
        self.behind: tuple[int, ...] = (SEP,) if around else ()

    def encode_all(self, texts: Sequence[str], /) -> list[Encoded]:
        return [Encoded(np.frombuffer(text.encode(), np.uint8).astype(np.int32)) for text in texts]

    def decode(self, ids: Iterable[int], /) -> str:
        return bytes(ids).decode()


class Words(Bytes):
    """A word is an id, by its length; white space before it is not encoded but known, as in `decode`."""

    vocab_size = 400

    def encode_all(self, texts: Sequence[str], /) -> list[Encoded]:
        found = []
        for text in texts:
            starts = [i for i in range(len(text)) if text[i] != " " and (i == 0 or text[i - 1] == " ")]
            ids = np.array([len(text[i:].split(" ")[0]) for i in starts], np.int32)
            found.append(Encoded(ids, np.array(starts)))
        self.texts = texts
        return found

    def decode(self, ids: Iterable[int], /) -> str:
        asked = list(ids)
        return next(
            (text for text in self.texts if [len(word) for word in text.split()] == asked), "another text"
        )


def documents(*texts: str) -> list[Document]:
    return [Document(text, f"text{i}", "", None) for i, text in enumerate(texts)]


def rolling(
    tokens: list[int], *, prefix: int, most: int, context: int
) -> Iterator[tuple[list[int], list[int]]]:
    """What lm-evaluation-harness reads and predicts, written from its description: the first window
    predicts as much as fits behind the prefix; each later one `most - context + 1` new tokens or what is
    left, behind as many tokens as fill it up."""
    yield [prefix, *tokens[: min(most, len(tokens)) - 1]], tokens[:most]
    done = min(most, len(tokens))
    while done < len(tokens):
        end = min(done + most - context + 1, len(tokens))
        yield tokens[end - most - 1 : end - 1], tokens[done:end]
        done = end


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_windows_are_those_of_a_rolling_perplexity(data: st.DataObject) -> None:
    """The same tokens read, the same predicted, in the same order, for any texts, window and stride."""
    texts = data.draw(st.lists(st.text("abcd", min_size=1, max_size=40), min_size=1, max_size=4))
    window = data.draw(st.integers(2, 12))
    stride = data.draw(st.integers(1, window))
    disjoint = stride == window and data.draw(st.booleans())
    rule = ReadingRule(window=window, stride="disjoint" if disjoint else stride)
    windows = Windows(documents(*texts), tokenizing=Bytes(), rule=rule)
    expected = [
        (read, predicted, i)
        for i, text in enumerate(texts)
        for read, predicted in rolling(
            list(text.encode()), prefix=BOS, most=window, context=window - stride + 1
        )
    ]
    rows = windows.rows(np.arange(len(windows)))
    assert len(windows) == len(expected)
    for row, (read, predicted, text) in enumerate(expected):
        assert rows.tokens[row, : len(read)].tolist() == read
        assert set(rows.tokens[row, len(read) :].tolist()) <= {PAD}
        assert rows.targets[row, rows.scored[row]].tolist() == predicted
        last = len(read)
        assert rows.scored[row].tolist() == [last - len(predicted) <= i < last for i in range(windows.length)]
        assert windows.document()[row] == text


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_each_token_is_scored_once_and_every_byte_counted_once(data: st.DataObject) -> None:
    texts = data.draw(st.lists(st.text("aé ", min_size=1, max_size=30), min_size=1, max_size=4))
    masked = data.draw(st.booleans())
    bos = data.draw(st.sampled_from(["auto", "never"]))
    window = data.draw(st.integers(3, 9))
    tokenizing = Bytes(mask=MASK if masked else None)
    rule = ReadingRule(window=window, stride=data.draw(st.sampled_from(["disjoint", 1])), bos=bos)
    windows = Windows(documents(*texts), tokenizing=tokenizing, rule=rule)
    every = np.arange(len(windows))
    rows, skipped = windows.rows(every), int(not masked and bos == "never")
    assert windows.length <= window
    for i, text in enumerate(texts):
        own = windows.document() == i
        scored = np.concatenate([rows.targets[row, rows.scored[row]] for row in every[own]])
        assert bytes(scored.tolist()) == text.encode()[skipped:]
        assert windows.n_bytes(every[own]).sum() == len(text.encode()) - skipped
        at = np.cumsum(rows.scored[own].sum(1)) - rows.scored[own].sum(1) + skipped
        assert windows.offset(every[own]).tolist() == at.tolist()
        assert bytes(windows.ids(i).tolist()) == text.encode()
    assert windows.scored_bytes(rows).tolist() == windows.n_bytes(every).tolist()
    counts = windows.token_counts()
    assert counts.sum() == rows.scored.sum() and not counts[256:].any()
    if not masked:
        # What is read next is what was the target, wherever the row goes on.
        assert (rows.tokens[:, 1:] == rows.targets[:, :-1])[rows.scored[:, 1:]].all()


def test_a_masked_window_stands_between_its_special_tokens() -> None:
    rule = ReadingRule(window=5)
    windows = Windows(documents("abcd", "xy"), tokenizing=Bytes(mask=MASK), rule=rule)
    rows = windows.rows(np.arange(len(windows)))
    a, b, c, d, x, y = b"abcdxy"
    assert rows.targets.tolist() == [[CLS, a, b, c, SEP], [CLS, b, c, d, SEP], [CLS, x, y, SEP, PAD]]
    assert rows.scored.astype(int).tolist() == [[0, 1, 1, 1, 0], [0, 0, 0, 1, 0], [0, 1, 1, 0, 0]]
    questions = measuring_masks(rows, mask_id=MASK, name="texts", indices=np.arange(3))
    assert (np.stack([question.scored for question in questions]).sum(0) == rows.scored).all()
    for question in questions:
        assert ((question.tokens == MASK) == question.scored).all()
    bare = Windows(documents("abc"), tokenizing=Bytes(mask=MASK), rule=rule.edit(bos="never"))
    assert bare.rows(np.arange(1)).targets.tolist() == [[a, b, c]]


def test_the_first_token_is_scored_only_behind_a_start_token() -> None:
    text, one = documents("abc"), np.arange(1)
    a, b, c = b"abc"
    skipped = Windows(text, tokenizing=Bytes(), rule=ReadingRule(window=9, first_token="skipped"))
    assert skipped.rows(one).scored.tolist() == [[False, True, True]]
    assert skipped.offset().tolist() == [1]
    none = Windows(text, tokenizing=Bytes(bos=None), rule=ReadingRule(window=9))
    assert none.rows(one).tokens.tolist() == [[a, b]]
    assert none.rows(one).targets.tolist() == [[b, c]]
    eos = Windows(text, tokenizing=Bytes(bos=None), rule=ReadingRule(window=9, bos="eos"))
    assert eos.rows(one).tokens.tolist() == [[EOS, a, b]]
    single = Windows(documents("a"), tokenizing=Bytes(bos=None), rule=ReadingRule(window=9))
    assert single.rows(one).tokens.tolist() == [[a]]
    assert not single.rows(one).scored.any()


@pytest.mark.parametrize(
    ("tokenizing", "rule", "context", "says"),
    [
        (Bytes(bos=None), {"bos": "always"}, 8, "has no start token; set bos to 'eos' or 'never'"),
        (Bytes(eos=None), {"bos": "eos"}, 8, "has no end-of-text token; set bos to 'never'"),
        (Bytes(bos=None), {"first_token": "scored"}, 8, "set first_token to 'auto' or bos to 'eos'"),
        (Bytes(), {"window": 9}, 8, "more than the 8 tokens that this model reads; lower it to 8"),
        (Bytes(), {}, None, "no longest context; give a window"),
        (Bytes(), {"stride": 9}, 8, "stride = 9 is more than the 8"),
        (Bytes(mask=MASK), {"stride": 7}, 8, "stride = 7 is more than the 6"),
        (Bytes(mask=MASK), {"window": 2}, 8, "holds no text beside the special tokens"),
        (Bytes(mask=MASK), {"bos": "eos"}, 8, "bos = 'eos' has no effect on a masked model"),
        (Bytes(mask=MASK), {"first_token": "skipped"}, 8, "first_token = 'skipped' has no effect"),
        (Bytes(mask=MASK, around=False), {"bos": "always"}, 8, "puts no special tokens around"),
    ],
)
def test_a_rule_that_cannot_be_followed_says_so(
    tokenizing: Bytes, rule: dict[str, object], context: int | None, says: str
) -> None:
    with pytest.raises(SpecError, match=says):
        ReadingRule(**rule).resolve(tokenizing, context=context)


def test_texts_that_cannot_be_read_say_so() -> None:
    with pytest.raises(CorpusError, match="no text to read"):
        Windows([], tokenizing=Bytes(), context=8)
    with pytest.raises(CorpusError, match="'text1' is empty"):
        Windows(documents("a", ""), tokenizing=Bytes(), context=8)
    refuse = ReadingRule(stride="refuse")
    with pytest.raises(CorpusError, match="'text0' has 9 tokens and the rule refuses more than 8"):
        Windows(documents("a" * 9), tokenizing=Bytes(), rule=refuse, context=8)
    assert len(Windows(documents("a" * 8), tokenizing=Bytes(), rule=refuse, context=8)) == 1
    # Without a start token the first token is only read: one more fits.
    assert len(Windows(documents("a" * 9), tokenizing=Bytes(bos=None), rule=refuse, context=8)) == 1
    windows = Windows(documents("abc"), tokenizing=Bytes(bos=None), context=8)
    with pytest.raises(CorpusError, match="no parts of speech"):
        windows.tags(np.arange(1))
    with pytest.raises(IndexError, match="the 1 rows"):
        windows.rows(np.array([1]))


def test_bytes_are_of_where_tokens_begin_when_ids_do_not_say() -> None:
    """Each byte of the text is of one token, white space before it included; lossy texts have none."""
    windows = Windows(documents(" né  bb c", "d"), tokenizing=Words(), context=2)
    assert windows.lossless
    assert windows.n_bytes(np.arange(3)).tolist() == [9, 1, 1]

    class Lossy(Words):
        def decode(self, ids: Iterable[int], /) -> str:
            return "d"

    lossy = Windows(documents(" né  bb c", "d"), tokenizing=Lossy(), context=2)
    assert lossy.given_back.tolist() == [False, True] and not lossy.lossless
    assert lossy.n_bytes(np.arange(3)).tolist() == [0, 0, 1]
    assert not lossy.scored_bytes(lossy.rows(np.arange(3))).any()
    found = {
        one.metric: one
        for one in ScoreProbe(on=("texts",)).measure(
            UniformSubject(vocab_size=8), {"texts": EvalSet.whole("texts", sequences=lossy)}
        )
    }
    assert found["loss"].n == 4 and found["bits_per_byte"].value is None


def test_the_fingerprint_holds_all_that_changes_the_rows() -> None:
    def of(*texts: str, rule: ReadingRule | None = None, tokenizing: Bytes | None = None) -> str:
        return Windows(documents(*texts), tokenizing=tokenizing or Bytes(), rule=rule, context=8).fingerprint

    class Other(Bytes):
        identity = "other"

    base = of("ab", "c")
    changed = [
        of("a", "bc"),
        of("c", "ab"),
        of("ab", "c", rule=ReadingRule(window=7)),
        of("ab", "c", rule=ReadingRule(bos="never")),
        of("ab", "c", rule=ReadingRule(first_token="skipped")),
        of("ab", "c", rule=ReadingRule(stride=3)),
        of("ab", "c", tokenizing=Other()),
    ]
    assert len({base, *changed}) == 8
    # What comes to the same is the same.
    assert base == of("ab", "c", rule=ReadingRule(window=8, bos="always", stride=8, first_token="scored"))


def test_the_rule_is_said_in_a_sentence() -> None:
    assert ReadingRule().resolve(Bytes(), context=8).text == (
        "windows of 8 tokens, 8 new tokens each, the last one filled up with what stands before it, behind "
        "the start token 300, first token scored"
    )
    assert ReadingRule(stride="refuse", bos="never").resolve(Bytes(), context=8).text == (
        "texts of at most 9 tokens, without a start token, first token not scored"
    )
    assert (
        ReadingRule(stride="refuse")
        .resolve(Bytes(mask=MASK), context=8)
        .text.startswith("texts of at most 6 tokens, between")
    )
    assert "between the special tokens (303,) and (304,), never scored" in (
        ReadingRule().resolve(Bytes(mask=MASK), context=8).text
    )


def test_probes_run_on_texts() -> None:
    """Loss and bits a byte of a chain that is known, over texts longer than the window."""
    transitions = np.full((306, 306), 0.5 / 304)
    transitions[:, ord("a")] = transitions[:, ord("b")] = 0.25
    windows = Windows(documents("abba" * 9, "ba"), tokenizing=Bytes(), context=8)
    sets = {"texts": EvalSet.whole("texts", sequences=windows)}
    found = {
        reading.metric: reading
        for reading in ScoreProbe(on=("texts",)).measure(BigramSubject(transitions), sets)
    }
    assert found["loss"].n == 38
    assert found["loss"].value == pytest.approx(np.log(4))
    assert found["bits_per_byte"].value == pytest.approx(2)
    assert found["memorized"].value == pytest.approx(19 / 38)  # a: the lower id of two.
    masked = Windows(documents("abba" * 9), tokenizing=Bytes(mask=MASK), context=8)

    class Masked(UniformSubject):
        mask_id = MASK

    sets = {"texts": EvalSet.whole("texts", sequences=masked)}
    (loss, *_) = ScoreProbe(on=("texts",)).measure(Masked(vocab_size=4), sets)
    assert loss.n == 36 and loss.value == pytest.approx(np.log(4))


def test_a_tokenizer_of_ours_reads_texts_as_its_corpus_does() -> None:
    windows = Windows(documents("héllo"), tokenizing=OfCorpus(ByteTokenizer()), context=16)
    rows = windows.rows(np.arange(1))
    assert rows.tokens[0, 0] == 0 and rows.scored.all()
    assert (rows.targets[0] == ByteTokenizer().encode("héllo")).all()
    assert windows.encode("é").tolist() == ByteTokenizer().encode("é").tolist()
    drawn = random_tokens(EvalSet.whole("t", sequences=windows), n_tokens=2, n_samples=1, excluded=0.0)
    assert set(drawn.ravel().tolist()) <= set(rows.targets[0].tolist())


def test_lowered_texts_keep_the_rule() -> None:
    rule = ReadingRule(window=4, stride=2)
    windows = Windows(documents("ABcDE"), tokenizing=Bytes(), rule=rule, context=8)
    lowered = windows.lowered()
    assert bytes(lowered.ids(0).tolist()) == b"abcde"
    assert lowered.reading == windows.reading and len(lowered) == len(windows)
