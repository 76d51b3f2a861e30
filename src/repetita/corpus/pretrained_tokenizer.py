"""Hugging Face tokenizers found: a tokenizer.json, a folder that holds one, or a name on the hub."""

import hashlib
import json
from pathlib import Path
from typing import Any

from repetita.corpus.tokenizer import PretrainedTokenizer, TokenizerSpec
from repetita.errors import CorpusError
from repetita.spec import plain

FILE = "tokenizer.json"
HUB = "hf:"


def hf_tokenizer_spec(source: str, /) -> TokenizerSpec:
    """The spec of a Hugging Face tokenizer, its size filled in; see TokenizerSpec for `source`.

    Raises CorpusError when there is none or it cannot be read.

    >>> from repetita import hf_tokenizer_spec
    >>> from tokenizers import Tokenizer, models
    >>> Tokenizer(models.WordLevel({"yes": 0, "no": 1, "?": 2}, unk_token="?")).save("tokenizer.json")
    >>> hf_tokenizer_spec("tokenizer.json").vocab_size
    4
    """
    size = _loaded(_content(source), source).vocab_size
    return TokenizerSpec(kind="hf", source=source, vocab_size=size)


def open_pretrained(spec: TokenizerSpec, /) -> PretrainedTokenizer:
    """The tokenizer of a spec of kind `hf`, without its special tokens, truncation and padding.

    Raises CorpusError when it is not there, cannot be read, or has another size than `vocab_size`.
    """
    assert spec.source is not None
    tokenizer = _loaded(_content(spec.source), spec.source)
    if tokenizer.vocab_size != spec.vocab_size:
        raise CorpusError(
            f"the tokenizer {spec.source} has {tokenizer.vocab_size} ids (its own and id 0), not the "
            f"vocab_size of {spec.vocab_size}; set vocab_size to {tokenizer.vocab_size}"
        )
    return tokenizer


def public_tokenizer(source: str, /) -> str:
    """The source as others may read it: a name on the hub, or of a path its last part only."""
    return source if source.startswith(HUB) else Path(source).expanduser().resolve().name


def published_tokenizer(spec: TokenizerSpec, /) -> dict[str, Any]:
    """A spec as JSON types and as others may read it: of every path its last part only."""
    values: dict[str, Any] = plain(spec)
    if spec.source is not None:
        values["source"] = public_tokenizer(spec.source)
    if spec.trained_on is not None:
        values["trained_on"] = plain(spec.trained_on.public)
    return values


def content_hash(spec: TokenizerSpec, /) -> str | None:
    """SHA-256 of the content of a tokenizer that is a file, which is read; None of other kinds.

    Raises CorpusError as `open_pretrained` does.
    """
    return None if spec.source is None else hashlib.sha256(_content(spec.source).encode()).hexdigest()


def tokenizer_identity(spec: TokenizerSpec, /, *, sha256: str | None) -> dict[str, Any]:
    """What a spec comes to wherever its file or the text that it was trained on lies.

    Instead of `source` or `trained_on` the hash of `to_json`.
    """
    values: dict[str, Any] = plain(spec)
    places = [values.pop(name, None) for name in ("source", "trained_on")]
    return values if places == [None, None] else values | {"content": sha256}


def _content(source: str) -> str:
    """The JSON of `PretrainedTokenizer`: the file, but for what is laid around a text."""
    path = _downloaded(source) if source.startswith(HUB) else _found(source)
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise CorpusError(
            f"cannot read the tokenizer {path}: {error.strerror}; check its permissions"
        ) from None
    except ValueError as error:
        raise CorpusError(f"the tokenizer {path} is not JSON ({error}); copy or download it again") from None
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise CorpusError(f"{path} is no tokenizer: it has no model; give a {FILE} of Hugging Face")
    content |= {"truncation": None, "padding": None, "post_processor": None}
    return json.dumps({"repetita": "hf", "tokenizer": content}, sort_keys=True, separators=(",", ":"))


def _loaded(content: str, source: str) -> PretrainedTokenizer:
    try:
        return PretrainedTokenizer(content)
    except Exception as error:  # noqa: BLE001 - the library raises nothing more special.
        raise CorpusError(
            f"the tokenizers library cannot read the tokenizer {source} ({error}); save it again with a "
            f"version that it knows"
        ) from None


def _found(source: str) -> Path:
    path = Path(source).expanduser()
    if path.is_dir():
        if (path / FILE).is_file():
            return path / FILE
        raise _slow(f"the folder {path}")
    if path.is_file():
        return path
    raise CorpusError(
        f"no tokenizer '{source}': there is no such file or folder; give the path of a {FILE}, or a name on "
        f"the hub as {HUB}NAME"
    )


def _slow(where: str) -> CorpusError:
    return CorpusError(
        f"{where} has no {FILE}, so that its tokenizer, if it is one, is a slow one; save it as a fast one: "
        f"transformers.AutoTokenizer.from_pretrained(...).save_pretrained(FOLDER)"
    )


def _downloaded(source: str) -> Path:
    """The file on the hub, from the cache of huggingface_hub where it is there."""
    try:
        from huggingface_hub import errors, hf_hub_download
    except ImportError:
        raise CorpusError(
            f"the tokenizer {source} is fetched by huggingface_hub, which is not installed; run: pip install "
            f"huggingface_hub"
        ) from None
    name, _, revision = source.removeprefix(HUB).partition("@")
    try:
        return Path(hf_hub_download(name, FILE, revision=revision or None))
    except errors.LocalEntryNotFoundError:
        raise CorpusError(
            f"the tokenizer {source} is not on this machine and the hub cannot be reached (no network, or "
            f"HF_HUB_OFFLINE is set); fetch it once with a network, or give the path of a {FILE}"
        ) from None
    except errors.EntryNotFoundError:
        raise _slow(f"{source} on the hub") from None
    except errors.HFValidationError:
        raise CorpusError(f"'{source}' is no name on the hub; write {HUB}NAME or {HUB}OWNER/NAME") from None
    except errors.RevisionNotFoundError:
        raise CorpusError(f"{source}: '{name}' has no revision '{revision}'; give one that it has") from None
    except (errors.RepositoryNotFoundError, errors.HfHubHTTPError) as error:
        why = str(error).splitlines()[0]
        raise CorpusError(
            f"the hub does not give the tokenizer {source} ({why}); check the name and, where it is gated, "
            f"your access"
        ) from None
