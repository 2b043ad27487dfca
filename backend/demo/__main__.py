"""``python -m backend.demo``, which is what ``./run demo`` runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape

from backend.demo.options import HOME, Options
from backend.demo.session import Demo
from backend.errors import BackendError
from model.errors import ModelError


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--auto", is_flag=True, help="Play the annotator, and end with the curve.")
@click.option(
    "--data", default="digits", show_default=True,
    help="Folder per class, flat folder, packed set (manifest.csv), or `digits`.",
)  # fmt: skip
@click.option("--home", default=HOME, show_default=True, help="Folder of all data.")
@click.option("--port", default=9090, show_default=True, help="Port of Doubtless.")
@click.option("--ls-port", default=8080, show_default=True, help="Port of Label Studio.")
@click.option(
    "--until",
    type=click.IntRange(2),
    help="Labels to give with --auto [200; 40 images with boxes].",
)
@click.option(
    "--seeds", type=click.IntRange(0),
    help="Random orders to compare with [5; 1 with boxes, which trains as often again]; 0: none.",
)  # fmt: skip
@click.option("--limit", type=click.IntRange(10), help="Import no more images than this.")
@click.option("--classes", default="", help="Classes of a folder without labels: cat,dog,…")
@click.option("--no-browser", is_flag=True, help="Do not open a browser.")
@click.option(
    "--json", "result", type=click.Path(path_type=Path), help="Write the result of --auto there."
)
def main(classes: str, no_browser: bool, result: Path | None, **chosen: Any) -> None:
    """Label Studio and Doubtless with a project of real images, connected and ready to label."""
    console = Console()
    try:
        options = Options(
            classes=tuple(filter(None, (c.strip() for c in classes.split(",")))),
            browser=not no_browser,
            result=result,
            **chosen,
        )
        code = Demo(options, console).run()
    except (BackendError, ModelError) as exc:
        Console(stderr=True).print(f"[red]demo:[/red] {escape(str(exc))}", highlight=False)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(code)


if __name__ == "__main__":
    main(prog_name="./run demo")
