"""Tokenizers lose nothing, never yield id 0, and come out the same every time."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repetita.corpus import tokenizer as module
from repetita.corpus.synthetic import SyntheticSpec, synthetic_documents
from repetita.corpus.tokenizer import (
    ByteTokenizer,
    Tokenizer,
    TokenizerSpec,
    load_tokenizer,
    train_tokenizer,
)
from repetita.errors import CorpusError, SpecError

TEXTS = [text for _, text in synthetic_documents(SyntheticSpec(n_documents=5, n_words=300))]
BPE = train_tokenizer(TokenizerSpec(vocab_size=400), texts=TEXTS)
BOTH: list[Tokenizer] = [ByteTokenizer(), BPE]


@settings(deadline=None)
@given(text=st.text() | st.text(alphabet="ab .\n\t\x1c\x85\u00a0'sD1é", max_size=400))
@pytest.mark.parametrize("tokenizer", BOTH, ids=["bytes", "bpe"])
def test_lossless(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.token_bytes[ids].sum() == len(text.encode())
    assert not (ids == 0).any()


@settings(deadline=None)
@given(text=st.text(alphabet="ab .\n\t\x1c\x85\u00a0'sD1é", max_size=200), size=st.integers(1, 20))
def test_long_texts_encode_as_if_in_one_piece(text: str, size: int) -> None:
    whole = BPE.encode(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PIECE", size)
        np.testing.assert_array_equal(BPE.encode(text), whole)


def test_the_name_of_the_special_token_is_text_like_any_other() -> None:
    ids = BPE.encode("<|endoftext|>")
    assert len(ids) > 1
    assert (ids > 0).all()


def test_id_0_stands_for_nothing() -> None:
    for tokenizer in BOTH:
        assert tokenizer.token_bytes[0] == 0
        assert len(tokenizer.token_bytes) == tokenizer.vocab_size
        assert tokenizer.decode([0, *tokenizer.encode("ab"), 0]) == "ab"


def test_a_saved_tokenizer_is_the_same() -> None:
    for tokenizer in BOTH:
        again = load_tokenizer(tokenizer.to_json())
        np.testing.assert_array_equal(again.encode(TEXTS[0]), tokenizer.encode(TEXTS[0]))
        assert again.to_json() == tokenizer.to_json()


def test_training_is_deterministic_across_processes() -> None:
    code = (
        "from repetita.corpus.synthetic import *; from repetita.corpus.tokenizer import *\n"
        "texts = [t for _, t in synthetic_documents(SyntheticSpec(n_documents=5, n_words=300))]\n"
        "print(train_tokenizer(TokenizerSpec(vocab_size=400), texts=texts).to_json())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == BPE.to_json()


def test_too_little_text_for_the_vocabulary_is_an_error() -> None:
    with pytest.raises(CorpusError, match="lower it to 2"):
        train_tokenizer(TokenizerSpec(vocab_size=300), texts=["aa bb"])


def test_bytes_have_their_own_vocabulary() -> None:
    assert TokenizerSpec(kind="bytes").vocab_size == 257
    with pytest.raises(SpecError, match="leave vocab_size out"):
        TokenizerSpec(kind="bytes", vocab_size=1024)
    with pytest.raises(SpecError, match="vocab_size"):
        TokenizerSpec(vocab_size=256)
