"""A run file: a RunSpec as JSON, in which a model that somebody else trained needs only its source."""

import json
from pathlib import Path
from typing import Any

from repetita.errors import SpecError
from repetita.train.recipe import RunSpec


def read_run_file(path: Path, /) -> RunSpec:
    """The run that a file describes; SpecError, which names the file, where it describes none.

    A model that is `{"source": "hf:NAME@REVISION"}`, or a folder, is looked at and filled in (see
    `pretrained_model`), and so is a tokenizer of kind hf that gives its source alone; a corpus that names no
    tokenizer gets that of such a model.
    """
    if not path.is_file():
        raise SpecError(f"no file {path}; give the path of a RunSpec as JSON")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SpecError(f"cannot read {path}: {error.strerror}; check its permissions") from None
    except UnicodeDecodeError:
        raise SpecError(f"{path} is not UTF-8; write a RunSpec as JSON") from None
    try:
        values = json.loads(text)
    except ValueError:
        values = None  # RunSpec says what is wrong with it.
    try:
        return RunSpec(**_filled_in(values)) if isinstance(values, dict) else RunSpec.from_json(text)
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from None


def _filled_in(values: dict[str, Any]) -> dict[str, Any]:
    model, corpus = values.get("model"), values.get("corpus")
    if isinstance(model, dict) and set(model) == {"source"}:
        try:
            from repetita.model.adopted import pretrained_model
        except ImportError as error:
            raise SpecError(
                f"a model of others needs {error.name}, which is not installed; run: pip install "
                f"'repetita[hf]'"
            ) from None
        values = values | {"model": pretrained_model(str(model["source"]))}
        if isinstance(corpus, dict):
            corpus = {"tokenizer": {"kind": "hf", "source": model["source"]}} | corpus
    tokenizer = corpus.get("tokenizer") if isinstance(corpus, dict) else None
    if isinstance(corpus, dict) and isinstance(tokenizer, dict) and set(tokenizer) == {"kind", "source"}:
        from repetita.corpus.pretrained_tokenizer import hf_tokenizer_spec

        if tokenizer["kind"] == "hf":
            corpus = corpus | {"tokenizer": hf_tokenizer_spec(str(tokenizer["source"]))}
    return values if corpus is None else values | {"corpus": corpus}
