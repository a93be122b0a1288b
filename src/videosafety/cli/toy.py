"""The toy world's files."""

from pathlib import Path
from typing import Annotated

import typer

from videosafety.cli.app import app, console, out_console

toy = typer.Typer(no_args_is_help=True, help="The toy world: clips with exact ground truth.")
app.add_typer(toy, name="toy")


@toy.command("build")
def toy_build(
    out: Annotated[Path, typer.Option("--out", help="A new folder.")],
    size: Annotated[str, typer.Option(help="small (2 languages) or full (10 languages, 19 rules).")] = "small",
    seed: Annotated[int, typer.Option(help="Equal seeds give equal bytes.", min=0)] = 2000,
    clips_per_name: Annotated[int, typer.Option(help="Clips that show each thing.", min=1, max=1000)] = 10,
) -> None:
    """Write the toy benchmark: mp4 and png files with exact labels, and manifest.jsonl."""
    from videosafety.core.progress import progress_bar
    from videosafety.toyworld.build import build_benchmark

    with progress_bar(console) as bar:
        task = bar.add_task("drawing clips", total=None)
        manifest = build_benchmark(
            out, size=size, seed=seed, clips_per_name=clips_per_name,
            on_clip=lambda done, total: bar.update(task, completed=done, total=total),
        )  # fmt: skip
    out_console.print(str(manifest), soft_wrap=True, markup=False, highlight=False)


@toy.command("footage")
def toy_footage(
    out: Annotated[Path, typer.Option("--out", help="A new folder.")],
    num_clips: Annotated[int, typer.Option(help="How many clips.", min=1)] = 400,
    size: Annotated[str, typer.Option(help="small or full.")] = "small",
    seed: Annotated[int, typer.Option(help="Equal seeds give equal bytes.", min=0)] = 0,
) -> None:
    """Write clips and their labels, and nothing else: what videosafety build --recipe build_toy starts from."""
    from videosafety.core.progress import progress_bar
    from videosafety.toyworld.footage import write_footage

    with progress_bar(console) as bar:
        task = bar.add_task("drawing clips", total=None)
        labels = write_footage(out, num_clips=num_clips, seed=seed, size=size,
                               on_clip=lambda done, total: bar.update(task, completed=done, total=total))  # fmt: skip
    out_console.print(str(labels), soft_wrap=True, markup=False, highlight=False)
