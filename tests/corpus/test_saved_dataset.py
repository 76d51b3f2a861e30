"""What `save_to_disk` wrote is read as it was saved, and what is missing of it is named."""

import json
from pathlib import Path

import datasets
import pytest

from repetita.corpus.documents import Document, find_source, read_documents
from repetita.errors import SpecError
from tests.corpus.tables import refusal


@pytest.fixture(scope="module")
def data() -> datasets.Dataset:
    return datasets.Dataset.from_dict(
        {"text": ["Gänse", "zwei", None, "drei", "vier"], "title": ["a", None, "c", "d", "e"], "n": [1] * 5},
        info=datasets.DatasetInfo(license="cc-by-4.0"),
    )


def test_a_saved_dataset_is_read_in_its_order(tmp_path: Path, data: datasets.Dataset) -> None:
    data.save_to_disk(tmp_path / "Geese", num_shards=3)
    source = find_source(str(tmp_path / "Geese"))
    assert (source.name, source.card) == ("geese", {"source": "Geese", "licence": "cc-by-4.0"})
    assert list(source.documents()) == [
        Document("Gänse", "a", "", None),
        Document("zwei", "data-00000-of-00003:2", "", None),
        Document("drei", "d", "", None),
        Document("vier", "e", "", None),
    ]
    data.select([4, 0]).save_to_disk(tmp_path / "chosen")
    assert [d.text for d in read_documents(str(tmp_path / "chosen"))] == ["vier", "Gänse"]


def test_a_split_is_chosen_by_its_name(tmp_path: Path, data: datasets.Dataset) -> None:
    splits = {"train": data, "test": data.select([1])}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "both")
    both = str(tmp_path / "both")
    assert len(list(read_documents(both))) == 4
    assert [d.text for d in read_documents(both, split="test")] == ["zwei"]
    assert find_source(both).signature == find_source(both, split="train").signature
    assert find_source(both).signature != find_source(both, split="test").signature
    assert find_source(both, split="test").card["split"] == "test"
    with pytest.raises(SpecError, match=r"no split 'tst' \(it has train, test\); did you mean 'test'\?"):
        find_source(both, split="tst")
    with pytest.raises(SpecError, match="is one data set; leave it out"):
        find_source(str(tmp_path / "both" / "test"), split="test")


def test_a_column_that_is_no_text_is_named(tmp_path: Path, data: datasets.Dataset) -> None:
    data.save_to_disk(tmp_path / "a")
    assert "has no column 'body' (it has text, title, n); " in refusal(tmp_path / "a", text_field="body")
    assert "holds int64, not text; " in refusal(tmp_path / "a", text_field="n")


def test_what_is_missing_or_damaged_is_named(tmp_path: Path, data: datasets.Dataset) -> None:
    data.save_to_disk(tmp_path / "a", num_shards=2)
    file = tmp_path / "a" / "data-00001-of-00002.arrow"
    sound = file.read_bytes()
    for cut in (0, 100, len(sound) // 2):
        file.write_bytes(sound[:cut])
        assert f"{file} is not a sound Arrow file (" in refusal(tmp_path / "a")
    file.unlink()
    assert f"{file} is missing; " in refusal(tmp_path / "a")
    for state in ("{", "[]", json.dumps({"_data_files": [3]}), json.dumps({"_data_files": 3})):
        (tmp_path / "a" / "state.json").write_text(state)
        assert "state.json" in refusal(tmp_path / "a")
    datasets.DatasetDict(train=data).save_to_disk(tmp_path / "both")
    (tmp_path / "both" / "train" / "state.json").unlink()
    assert "state.json is missing; " in refusal(tmp_path / "both")
    (tmp_path / "both" / "dataset_dict.json").write_text('{"splits": "train"}')
    assert "dataset_dict.json is damaged; " in refusal(tmp_path / "both")
