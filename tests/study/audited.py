"""A tiny model of others and texts for the tests of audits."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from repetita.study.audit import Audit, Audited
from tests.model.strangers import stranger
from tests.model.test_pretrained_tokenizing import causal

SIZES: dict[str, Any] = {"vocab_size": 258, "max_position_embeddings": 64}


def model_at(folder: Path, kind: str = "gpt_neox", **other: Any) -> Path:
    stranger(kind, **{**SIZES, **other}).save_pretrained(str(folder))
    causal(folder)
    return folder


def lines(file: Path, texts: Sequence[str]) -> Path:
    rows = [{"text": text, "id": f"g{i}"} for i, text in enumerate(texts)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


GEESE = [f"Goose {i} flies south; " * (i + 1) for i in range(6)]


def asked(model: Path, texts: Path, **more: Any) -> Audit:
    return Audit(subjects=(str(model),), texts=(str(texts),), prompts=(4,), suffixes=(6,), **more)


def value(audited: Audited, metric: str, group: str = "geese.jsonl") -> Any:
    table = audited.by_group.filter(pl.col("metric") == metric, pl.col("group") == group)
    (found,) = table["value"].to_list()
    return found
