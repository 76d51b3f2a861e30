"""`repetita demo`: memorization, forgetting and double descent from a real text, in about five minutes."""

import typer

from repetita.cli.options import ROOT, AsJson, Processes, Root

STUDIES = ("memorization_speed", "forgetting", "double_descent")
SCALE = "demo"
TITLE = "Memorizing, forgetting and repetition in miniature"
LEAD = (
    "Models of 4 thousand to 220 thousand parameters, 249 State of the Union speeches, one seed. One seed "
    "illustrates and cannot support: the scale laptop asks the same questions with three."
)


def demo(
    context: typer.Context,
    processes: Processes = None,
    open_page: bool = typer.Option(False, "--open", help="Open the page in a browser."),
    as_json: AsJson = False,
    root: Root = ROOT,
) -> None:
    """Memorization, forgetting and double descent from 249 speeches, in about five minutes on two cores."""
    from repetita.cli.study import run_portions, show_published
    from repetita.study.prepare import portion
    from repetita.study.publish import publish
    from repetita.study.where import Where

    portions = [portion(name, scale=SCALE) for name in STUDIES]
    quiet = context.obj == "quiet"
    failed = run_portions(
        portions, root=root, where=Where(processes=processes), quiet=quiet, as_json=False, show=not as_json
    )
    published = publish(portions, root=root, title=TITLE, lead=LEAD)
    show_published(published, open_page=open_page, as_json=as_json)
    if failed:
        raise typer.Exit(1)
