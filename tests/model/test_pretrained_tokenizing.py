"""A foreign tokenizer gives a text the ids that its model knows, and says what stands around it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from repetita.corpus.windows import Document, ReadingRule, Windows
from repetita.errors import SpecError
from repetita.model.pretrained_files import PretrainedFiles
from repetita.model.pretrained_tokenizing import open_tokenizing

TEXTS = ["naïve geese: 鵝!", " two  spaces\n", "<s> is text like any other"]


def byte_level() -> Tokenizer:
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(
        models.BPE({symbol: i + 2 for i, symbol in enumerate(symbols)} | {"<s>": 0, "</s>": 1}, [])
    )
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return made


def word_piece() -> Tokenizer:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "geese", "##s", "two", "!", "are"]
    made = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    made.decoder = decoders.WordPiece()
    return made


def saved(folder: Path, made: Tokenizer, **special: Any) -> PretrainedFiles:
    from transformers import PreTrainedTokenizerFast

    fast: Any = PreTrainedTokenizerFast
    fast(tokenizer_object=made, **special).save_pretrained(str(folder))
    return PretrainedFiles("geese", folder, (), "safetensors")


def causal(folder: Path) -> PretrainedFiles:
    return saved(folder, byte_level(), bos_token="<s>", eos_token="</s>")


def masked(folder: Path) -> PretrainedFiles:
    names = ("unk", "cls", "sep", "pad", "mask")
    return saved(folder, word_piece(), **{f"{name}_token": f"[{name.upper()}]" for name in names})


def test_ids_are_those_of_the_library(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    found = open_tokenizing(causal(tmp_path), masked=False)
    library = AutoTokenizer.from_pretrained(str(tmp_path))
    for text, encoded in zip(TEXTS[:2], found.encode_all(TEXTS), strict=False):
        assert encoded.ids.tolist() == library(text, add_special_tokens=False)["input_ids"]
        assert found.decode(encoded.ids.tolist()) == text
        assert encoded.starts is None
        assert found.token_bytes[encoded.ids].sum() == len(text.encode())
    assert (found.bos_id, found.eos_id, found.mask_id, found.vocab_size) == (0, 1, None, 258)
    assert (found.before, found.behind) == ((), ())


def test_the_name_of_a_special_token_is_text(tmp_path: Path) -> None:
    found = open_tokenizing(causal(tmp_path), masked=False)
    ids = found.encode_all([TEXTS[2]])[0].ids
    assert found.bos_id not in ids.tolist()
    assert found.decode(ids.tolist()) == TEXTS[2]


def test_a_masked_model_has_special_tokens_around(tmp_path: Path) -> None:
    found = open_tokenizing(masked(tmp_path), masked=True)
    assert (found.before, found.behind, found.mask_id, found.pad_id) == ((2,), (3,), 4, 0)
    assert found.encode_all(["two geeses!"])[0].ids.tolist() == [7, 5, 6, 8]
    windows = Windows(
        [Document("two geeses!", "d", "", None)], tokenizing=found, rule=ReadingRule(), context=8
    )
    rows = windows.rows(np.array([0]))
    assert rows.tokens[0].tolist() == [2, 7, 5, 6, 8, 3]
    assert rows.scored[0].tolist() == [False, True, True, True, True, False]


def test_texts_become_rows_behind_the_start_token(tmp_path: Path) -> None:
    found = open_tokenizing(causal(tmp_path), masked=False)
    windows = Windows([Document(TEXTS[0], "d", "", None)], tokenizing=found, context=64)
    rows = windows.rows(np.array([0]))
    assert rows.tokens[0, 0] == 0
    assert windows.scored_bytes(rows).tolist() == [len(TEXTS[0].encode())]


def test_tokenizers_that_encode_differently_differ_in_identity(tmp_path: Path) -> None:
    one = open_tokenizing(causal(tmp_path / "a"), masked=False).identity
    again = open_tokenizing(causal(tmp_path / "b"), masked=False).identity
    other = saved(tmp_path / "c", byte_level(), bos_token="</s>", eos_token="</s>")
    assert one == again != open_tokenizing(other, masked=False).identity


def test_rows_end_in_an_id_that_is_in_every_embedding(tmp_path: Path) -> None:
    added = saved(tmp_path, byte_level(), bos_token="<s>", eos_token="</s>", pad_token="[PAD]")
    found = open_tokenizing(added, masked=False)
    assert found.vocab_size == 259, "the padding was added behind the model's own"
    assert found.pad_id == 0


def test_what_is_missing_is_said_in_one_sentence(tmp_path: Path) -> None:
    empty = PretrainedFiles("geese", tmp_path, (), "safetensors")
    with pytest.raises(SpecError, match="geese has no tokenizer; put"):
        open_tokenizing(empty, masked=False)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(SpecError, match="geese has no tokenizer that can be read"):
        open_tokenizing(empty, masked=False)
    with pytest.raises(SpecError, match="masked model whose tokenizer has no mask token"):
        open_tokenizing(causal(tmp_path), masked=True)
    unpadded = saved(tmp_path / "b", word_piece(), unk_token="[UNK]", mask_token="[MASK]")
    with pytest.raises(SpecError, match="masked model whose tokenizer has no padding token"):
        open_tokenizing(unpadded, masked=True)
