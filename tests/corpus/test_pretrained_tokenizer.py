"""Any fast tokenizer encodes as its library does, one id higher, and what it loses is found on the text."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from repetita.corpus import layout
from repetita.corpus.building import build_shards
from repetita.corpus.pretrained_tokenizer import (
    content_hash,
    hf_tokenizer_spec,
    open_pretrained,
    public_tokenizer,
)
from repetita.corpus.sequences import Corpus, CorpusSpec, open_corpus
from repetita.corpus.shards import Shards, open_shards
from repetita.corpus.source import Document, Source
from repetita.corpus.synthetic import SyntheticSpec, synthetic_documents
from repetita.corpus.tokenizer import PretrainedTokenizer, TokenizerSpec
from repetita.errors import CorpusError, SpecError

WORDS = [text for _, text in synthetic_documents(SyntheticSpec(n_documents=8, n_words=200))]
TEXTS = [*WORDS, "Déjà vu! Ça va? Oui.\n\nThe End... It's 42 <|endoftext|> or [CLS]. 'Tis", "ALL CAPS. No!"]


def byte_level() -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator(WORDS, trainer)
    return made


def with_special_tokens() -> Tokenizer:
    """Special tokens, one that is not, a post-processor, truncation and padding: as a chat model has it."""
    made = byte_level()
    made.add_special_tokens(["<|endoftext|>", "<s>"])
    made.add_tokens([AddedToken("  ", normalized=False)])
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A <|endoftext|>",
        special_tokens=[(name, made.token_to_id(name)) for name in ("<s>", "<|endoftext|>")],
    )
    made.enable_truncation(8)
    made.enable_padding(length=16)
    return made


def word_piece() -> Tokenizer:
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    special = ["[UNK]", "[CLS]", "[SEP]"]
    made.train_from_iterator(
        WORDS, trainers.WordPieceTrainer(vocab_size=300, special_tokens=special, show_progress=False)
    )
    return made


def unigram() -> Tokenizer:
    made = Tokenizer(models.Unigram())
    made.normalizer = normalizers.NFKC()
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=300, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False
    )
    made.train_from_iterator(WORDS, trainer)
    return made


MADE = {
    "byte-level": byte_level(),
    "special": with_special_tokens(),
    "word-piece": word_piece(),
    "unigram": unigram(),
}
LOSSLESS = {"byte-level", "special"}


@pytest.fixture(params=MADE)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def saved(folder: Path, kind: str) -> str:
    path = folder / f"{kind}.json"
    MADE[kind].save(str(path))
    return str(path)


def opened(folder: Path, kind: str) -> PretrainedTokenizer:
    return open_pretrained(hf_tokenizer_spec(saved(folder, kind)))


def source() -> Source:
    def documents() -> list[Document]:
        return [Document(text, str(number), "", None) for number, text in enumerate(TEXTS)]

    return Source("texts", "1", {"source": "texts"}, lambda: iter(documents()))


def plain(kind: str) -> Tokenizer:
    """The library's own, without what is laid around a text."""
    content = json.loads(MADE[kind].to_str())
    content |= {"post_processor": None, "truncation": None, "padding": None}
    made = Tokenizer.from_str(json.dumps(content))
    made.encode_special_tokens = True
    return made


def test_ids_are_those_of_the_library_and_one(tmp_path: Path, kind: str) -> None:
    tokenizer, library = opened(tmp_path, kind), plain(kind)
    assert tokenizer.vocab_size == library.get_vocab_size() + 1 == len(tokenizer.token_bytes)
    for text, one in zip(TEXTS, tokenizer.encode_all(TEXTS), strict=True):
        assert (one.ids - 1).tolist() == library.encode(text).ids
        np.testing.assert_array_equal(one.ids, tokenizer.encode(text))
        assert (one.ids > 0).all()


def test_what_is_lost_is_found_by_the_text(tmp_path: Path, kind: str) -> None:
    tokenizer = opened(tmp_path, kind)
    for text, one in zip(TEXTS, tokenizer.encode_all(TEXTS), strict=True):
        assert (one.starts is None) == (kind in LOSSLESS)
        if one.starts is None:
            assert tokenizer.decode(one.ids) == text
            assert tokenizer.token_bytes[one.ids].sum() == len(text.encode())
        else:
            assert (np.diff(one.starts) >= 0).all()
            assert one.starts.tolist() == [start for start, _ in plain(kind).encode(text).offsets]


@given(text=st.text() | st.text(alphabet="ab <s>|\n\tAé", max_size=60))
def test_byte_level_is_lossless_on_any_text(text: str) -> None:
    content = json.dumps({"repetita": "hf", "tokenizer": json.loads(MADE["byte-level"].to_str())})
    tokenizer = PretrainedTokenizer(content)
    (one,) = tokenizer.encode_all([text])
    assert one.starts is None
    assert tokenizer.decode([0, *one.ids]) == text


def test_a_lower_casing_byte_level_tokenizer_is_lossy_where_there_are_capitals(tmp_path: Path) -> None:
    """As many bytes, but others: a property of the text, not of the tokenizer's class."""
    made = byte_level()
    made.normalizer = normalizers.Lowercase()
    made.save(str(tmp_path / "t.json"))
    tokenizer = open_pretrained(hf_tokenizer_spec(str(tmp_path / "t.json")))
    assert [one.starts is None for one in tokenizer.encode_all(["no capitals", "One", "none"])] == [
        True,
        False,
        True,
    ]


def build(folder: Path, kind: str, name: str = "built") -> Shards:
    return build_shards(folder / name, source=source(), tokenizer=hf_tokenizer_spec(saved(folder, kind)))


def test_the_manifest_says_what_was_lost(tmp_path: Path, kind: str) -> None:
    shards = build(tmp_path, kind)
    manifest, library = shards.manifest, plain(kind)
    assert manifest["lossless"] == (kind in LOSSLESS)
    unknown = library.token_to_id({"word-piece": "[UNK]", "unigram": "<unk>"}.get(kind, ""))
    expected = sum(id_ == unknown for text in TEXTS for id_ in library.encode(text).ids)
    assert manifest["unknown_tokens"] == expected
    assert (expected > 0) == (kind not in LOSSLESS)
    assert str(tmp_path) not in json.dumps(manifest)
    assert shards.tokenizer.token_bytes.any() == (kind in LOSSLESS)
    first = shards.tokens[: shards.n_tokens[0]]
    decoded = shards.tokenizer.decode(first)
    assert decoded == (TEXTS[0] if kind in LOSSLESS else library.decode([int(i) - 1 for i in first]))


def test_sentences_end_where_the_text_says(tmp_path: Path, kind: str) -> None:
    """Ends of sentences, as tokens, stand for the same stretches of text with every tokenizer."""
    shards = build(tmp_path, kind)
    document = len(WORDS)
    start = int(shards.offsets[document])
    stop = start + int(shards.n_tokens[document])
    ends = [int(end) for end in shards.sentence_ends if start < end <= stop]
    pieces = [
        shards.tokenizer.decode(shards.tokens[a:b]) for a, b in zip([start, *ends[:-1]], ends, strict=True)
    ]
    if kind in LOSSLESS:
        assert pieces[:4] == ["Déjà vu!", " Ça va?", " Oui.\n\n", "The End..."]
    assert len(pieces) == 6
    assert all(word in piece.lower() for word, piece in zip(("vu", "va", "ui", "nd"), pieces, strict=False))
    paragraphs = [int(end) for end in shards.paragraph_ends if start < end <= stop]
    assert paragraphs == [ends[2], ends[-1]]


def test_parts_of_a_long_document_encode_as_the_whole(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one() -> Source:
        text = " ".join(WORDS) + "\n\nÀ bientôt! " + "\n\n".join(WORDS)
        return source()._replace(documents=lambda: iter([Document(text, "long", "", None)]))

    spec = hf_tokenizer_spec(saved(tmp_path, kind))
    whole = build_shards(tmp_path / "whole", source=one(), tokenizer=spec)
    for name, value in {
        "STRETCH_BYTES": 900,
        "LONG_BYTES": 1200,
        "WINDOW_BYTES": 900,
        "NEIGHBOURS": 60,
    }.items():
        monkeypatch.setattr(layout, name, value)
    parts = build_shards(tmp_path / "parts", source=one(), tokenizer=spec)
    assert parts.manifest == whole.manifest


def test_a_moved_tokenizer_is_the_same_and_its_path_is_nowhere(tmp_path: Path) -> None:
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        MADE["special"].save(str(tmp_path / folder / "tokenizer.json"))
    corpora = [
        open_corpus(corpus_spec(hf_tokenizer_spec(str(tmp_path / folder))), cache=tmp_path / "cache")
        for folder in ("here", "there/tokenizer.json")
    ]
    assert corpora[0].fingerprint == corpora[1].fingerprint
    assert corpora[0].path == corpora[1].path
    other = open_corpus(
        corpus_spec(hf_tokenizer_spec(saved(tmp_path, "byte-level"))), cache=tmp_path / "cache"
    )
    assert other.fingerprint != corpora[0].fingerprint
    assert str(tmp_path) not in (corpora[0].path / "manifest.json").read_text()
    # A run that was moved to another machine finds its corpus by what run.json says.
    spec = corpora[0].spec
    source = public_tokenizer(str(spec.tokenizer.source))
    elsewhere = spec.edit(
        tokenizer=TokenizerSpec(kind="hf", source=source, vocab_size=spec.tokenizer.vocab_size)
    )
    assert Corpus(elsewhere, shards=open_shards(corpora[0].path)).fingerprint == corpora[0].fingerprint


def corpus_spec(tokenizer: TokenizerSpec) -> CorpusSpec:
    return CorpusSpec(
        source="synthetic",
        synthetic=SyntheticSpec(n_documents=30, n_words=60),
        tokenizer=tokenizer,
        length=16,
    )


def test_the_card_of_a_corpus_says_what_was_lost(tmp_path: Path) -> None:
    spec = corpus_spec(hf_tokenizer_spec(saved(tmp_path, "word-piece")))
    card = open_corpus(spec, cache=tmp_path / "cache").card
    assert card["lossless"] is False
    assert card["unknown_tokens"] >= 0


def test_the_hub_names_are_public_and_paths_are_not(tmp_path: Path) -> None:
    assert public_tokenizer("hf:gpt2@main") == "hf:gpt2@main"
    assert public_tokenizer(str(tmp_path / "a.json")) == "a.json"
    assert content_hash(TokenizerSpec()) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON .*copy or download it again"),
        ("[]", "it has no model"),
        ('{"model": {"type": "Nonsense"}}', "library cannot read the tokenizer .*save it again"),
    ],
)
def test_a_broken_file_is_an_error(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(CorpusError, match=message):
        hf_tokenizer_spec(str(tmp_path))


def test_what_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no such file or folder; give the path"):
        hf_tokenizer_spec(str(tmp_path / "none"))
    (tmp_path / "vocab.txt").write_text("a slow tokenizer's")
    with pytest.raises(CorpusError, match=r"has no tokenizer\.json.*save it as a fast one"):
        hf_tokenizer_spec(str(tmp_path))


def test_the_hub_offline_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CorpusError, match="HF_HUB_OFFLINE is set"):
        hf_tokenizer_spec("hf:nobody/nothing")
    with pytest.raises(CorpusError, match="is no name on the hub"):
        hf_tokenizer_spec("hf:a b/c")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CorpusError, match="pip install huggingface_hub"):
        hf_tokenizer_spec("hf:nobody/nothing")


def test_a_wrong_size_is_an_error_that_names_the_right_one(tmp_path: Path) -> None:
    path = saved(tmp_path, "byte-level")
    with pytest.raises(CorpusError, match=r"has 401 ids .*set vocab_size to 401"):
        open_pretrained(TokenizerSpec(kind="hf", source=path, vocab_size=400))


def test_options_without_effect_or_missing_are_errors() -> None:
    for kind in ("bytes", "bpe"):
        with pytest.raises(SpecError, match=f"no effect on kind '{kind}'"):
            TokenizerSpec(kind=kind, source="a.json")
    with pytest.raises(SpecError, match="lacks its source; write hf_tokenizer_spec"):
        TokenizerSpec(kind="hf", vocab_size=300)
    with pytest.raises(SpecError, match="lacks its vocab_size"):
        TokenizerSpec(kind="hf", source="a.json")


@pytest.mark.slow
@pytest.mark.ci
def test_ids_are_those_of_transformers(tmp_path: Path, kind: str) -> None:
    from transformers import PreTrainedTokenizerFast

    theirs: Any = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=plain(kind)
    )
    tokenizer = opened(tmp_path, kind)
    for text in TEXTS:
        ids = theirs(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        assert (tokenizer.encode(text) - 1).tolist() == ids
