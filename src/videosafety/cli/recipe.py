"""Recipes: what can be set, and what is."""

from typing import TYPE_CHECKING, Annotated

import typer

from videosafety.cli.app import Set, app, out_console

if TYPE_CHECKING:
    from pydantic import BaseModel

recipe = typer.Typer(no_args_is_help=True, help="Recipes: what can be set, and what is.")
app.add_typer(recipe, name="recipe")

OfBuild = Annotated[bool, typer.Option("--build", help="Of a recipe for videosafety build.")]


@recipe.command("show")
def recipeshow(
    name: Annotated[str, typer.Argument(help="A recipe file or name.")],
    overrides: Set = None,
    of_build: OfBuild = False,
) -> None:
    """A recipe with every default filled in, as YAML."""
    import yaml

    from videosafety.core.recipe import load_recipe

    loaded = load_recipe(name, _schema(of_build=of_build), overrides=overrides or [])
    text = yaml.safe_dump(loaded.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    out_console.print(text, markup=False, highlight=False)


@recipe.command("knobs")
def recipe_knobs(of_build: OfBuild = False) -> None:
    """Every key that a recipe may set, with default, unit and the paper's value."""
    from videosafety.core.recipe import describe

    for row in describe(_schema(of_build=of_build)):
        unit = f" {row.unit}" if row.unit else ""
        paper = "" if row.paper is None else f" (paper: {row.paper})"
        line = f"{row.key} = {row.default}{unit}{paper}\n    {row.help}"
        out_console.print(line, markup=False, highlight=False, soft_wrap=True)


def _schema(*, of_build: bool) -> "type[BaseModel]":
    """What a recipe may say."""
    if of_build:
        from videosafety.build.recipe import BuildRecipe

        return BuildRecipe
    from videosafety.settings import Recipe

    return Recipe
