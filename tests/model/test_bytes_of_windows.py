"""Every byte of a text is of one token and one window, however its tokenizer cuts and spells it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from repetita.corpus.windows import ReadingRule, Windows
from repetita.model.pretrained_tokenizing import HfTokenizing
from tests.corpus.test_pretrained_tokenizer import MADE
from tests.corpus.test_windows import documents


def byte_fallback() -> Tokenizer:
    """As SentencePiece makes them for Llama: a space before the text, unknown characters as their bytes."""
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "é", "b", "▁a", "▁▁"]
    made = Tokenizer(
        models.BPE(
            {piece: number for number, piece in enumerate(pieces)},
            [("▁", "a"), ("▁", "▁")],
            unk_token="<unk>",
            byte_fallback=True,
        )
    )
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return made


def prefixed() -> Tokenizer:
    """As of RoBERTa: bytes, with a space before the text that was not there."""
    made = Tokenizer.from_str(MADE["byte-level"].to_str())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return made


KINDS = {
    "byte-level": MADE["byte-level"],
    "special": MADE["special"],
    "prefixed": prefixed(),
    "byte-fallback": byte_fallback(),
    "word-piece": MADE["word-piece"],
    "unigram": MADE["unigram"],
}
OPENED = {
    kind: HfTokenizing(
        PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
            tokenizer_object=made, bos_token="<s>", eos_token="<s>"
        ),
        masked=False,
        name=kind,
    )
    for kind, made in KINDS.items()
}
TEXT = st.text("abé東🦢 \n", min_size=1, max_size=20).filter(lambda text: bool(text.strip()))


@pytest.mark.parametrize("kind", OPENED)
@settings(max_examples=25, deadline=None)
@given(
    texts=st.lists(TEXT, min_size=1, max_size=3),
    bos=st.sampled_from(["eos", "never"]),
    window=st.integers(2, 6),
    stride=st.sampled_from([1, 2, "disjoint"]),
)
def test_windows_share_the_bytes_of_a_text(
    kind: str, texts: list[str], bos: str, window: int, stride: int | str
) -> None:
    rule = ReadingRule(bos=bos, window=window, stride=stride)
    windows = Windows(documents(*texts), tokenizing=OPENED[kind], rule=rule)
    if kind not in ("word-piece", "unigram"):
        assert windows.lossless
    every = np.arange(len(windows))
    found, scored = windows.n_bytes(every), windows.rows(every).scored
    for number, text in enumerate(texts):
        own = windows.document() == number
        assert scored[own].sum() == windows.n_tokens[number] - (bos == "never")
        if not windows.given_back[number]:
            assert not found[own].any()
            continue
        starts, stops = windows.token_spans(number)
        assert starts[0] == 0 and stops[-1] == len(text.encode())
        assert (starts[1:] == stops[:-1]).all() and (stops >= starts).all()
        assert found[own].sum() == len(text.encode()) - (stops[0] if bos == "never" else 0)
        # A row's share is that of its scored tokens.
        place = windows.places(every)[own]
        sizes = np.where(scored[own], (stops - starts)[np.maximum(place, 0)], 0)
        assert found[own].tolist() == sizes.sum(1).tolist()
