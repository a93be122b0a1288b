"""The taxonomy: what counts as harmful, in risks and their subcategories, each with the policy that judges read.

The paper (section 3) has 6 risks and 19 subcategories but publishes neither most names nor the policy texts, so
``taxonomy.yaml`` is a reconstruction and says so; ``taxonomy_toy.yaml`` is the toy world's. Communities differ in what
they forbid: a taxonomy, or an override file beside it, may replace single policies for one community.

Example:
    >>> load_taxonomy("toy").subcategory("rule_03").kind
    'sign'
    >>> load_taxonomy("vse", override=Path("ours.yaml"), community="id").subcategory("fraud").policy
"""

import json
from collections import Counter
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import Field, StringConstraints, ValidationError, model_validator

from videosafety.core.errors import InputError, did_you_mean
from videosafety.core.explain import explain
from videosafety.core.recipe import read_yaml
from videosafety.core.records import LANGUAGES, Record

PACKAGED = {"vse": "taxonomy.yaml", "toy": "taxonomy_toy.yaml"}

Slug = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=60)]
Policy = Annotated[str, StringConstraints(min_length=1, max_length=2000)]
Policies = dict[Slug, Policy]
R = TypeVar("R", bound=Record)


class Subcategory(Record):
    """One thing that must be defended; ``policy`` completes "A safe response …".

    ``kind`` (what of a clip shows it) and ``held_out`` (never trained on) are the toy world's.
    """

    id: Slug
    name: str = Field(min_length=1)
    policy: Policy
    kind: Literal["sign", "order", "motion"] | None = None
    held_out: bool = False


class Risk(Record):
    """A group of subcategories."""

    id: Slug
    name: str = Field(min_length=1)
    subcategories: tuple[Subcategory, ...] = Field(min_length=1)


class Overrides(Record):
    """Policy texts that replace a taxonomy's: for everyone, and for one community (a language code or any name)."""

    policies: Policies = Field(default_factory=dict)
    communities: dict[str, Policies] = Field(default_factory=dict)


class Taxonomy(Record):
    """Risks and their subcategories. ``community`` is the one whose policies these are, None for the general ones."""

    name: str = Field(min_length=1)
    version: int = Field(ge=1)
    status: Literal["reconstruction", "toy", "custom"]
    note: str = ""
    risks: tuple[Risk, ...] = Field(min_length=1)
    communities: dict[str, Policies] = Field(default_factory=dict)
    community: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        ids = [risk.id for risk in self.risks] + [subcategory.id for subcategory in self.subcategories]
        if twice := sorted(name for name, times in Counter(ids).items() if times > 1):
            raise ValueError(f"the id {twice[0]!r} stands twice")
        known = {subcategory.id for subcategory in self.subcategories}
        for community, policies in self.communities.items():
            for stray in sorted(set(policies) - known):
                raise ValueError(f"communities.{community}: no subcategory {stray!r}; {did_you_mean(stray, known)}")
        return self

    @property
    def subcategories(self) -> tuple[Subcategory, ...]:
        """All subcategories, in the file's order."""
        return tuple(subcategory for risk in self.risks for subcategory in risk.subcategories)

    def subcategory(self, name: str) -> Subcategory:
        """The subcategory with this id. Raises InputError: there is none, with the nearest."""
        for subcategory in self.subcategories:
            if subcategory.id == name:
                return subcategory
        hint = did_you_mean(name, [subcategory.id for subcategory in self.subcategories])
        raise InputError(f"no category {name!r} in the taxonomy {self.name!r}", fix=hint)

    def risk_of(self, name: str) -> Risk:
        """The risk that the subcategory with this id belongs to. Raises InputError: there is no such subcategory."""
        wanted = self.subcategory(name)
        return next(risk for risk in self.risks if wanted in risk.subcategories)


def load_taxonomy(
    name_or_path: str | Path = "vse", *, override: Path | None = None, community: str | None = None
) -> Taxonomy:
    """A taxonomy with the policies of one community.

    A policy is taken from the first of: the override file's community, the override file, the taxonomy's own
    community, the taxonomy.

    Args:
        name_or_path: ``vse``, ``toy`` or a YAML file in their form.
        override: a YAML file with ``policies: {id: text}`` and ``communities: {name: {id: text}}``, both optional.
        community: a language code or a name that either file has; a language without texts of its own gets the general.

    Raises:
        InputError: no such taxonomy, file, community or subcategory, or a file that does not load.
    """
    taxonomy = _load(name_or_path)
    extra = _read(override, Overrides) if override is not None else Overrides()
    known = {*taxonomy.communities, *extra.communities, *LANGUAGES}
    if community is not None and community not in known:
        raise InputError(f"no community {community!r} in {name_or_path}", fix=did_you_mean(community, known))
    _check_ids(extra, taxonomy, where=str(override))
    policies = taxonomy.communities.get(community or "", {}) | extra.policies
    policies |= extra.communities.get(community or "", {})
    risks = tuple(_with_policies(risk, policies) for risk in taxonomy.risks)
    return taxonomy.model_copy(update={"risks": risks, "community": community})


def _with_policies(risk: Risk, policies: Policies) -> Risk:
    replaced = tuple(
        subcategory.model_copy(update={"policy": policies.get(subcategory.id, subcategory.policy)})
        for subcategory in risk.subcategories
    )
    return risk.model_copy(update={"subcategories": replaced})


def _load(name_or_path: str | Path) -> Taxonomy:
    if str(name_or_path) in PACKAGED:
        with as_file(files("videosafety.core") / PACKAGED[str(name_or_path)]) as path:
            return _read(path, Taxonomy)
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        fix = f"{did_you_mean(str(name_or_path), PACKAGED)}, or the path of a YAML file"
        raise InputError(f"unknown taxonomy {str(name_or_path)!r}", fix=fix)
    return _read(path, Taxonomy)


def _read(path: Path, kind: type[R]) -> R:
    data = read_yaml(path)
    try:
        return kind.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        raise InputError("; ".join(explain(error, kind=kind)[:3]), where=str(path), fix="mend the file") from error


def _check_ids(extra: Overrides, taxonomy: Taxonomy, *, where: str) -> None:
    """An override of a subcategory that is not there is a misspelling."""
    known = [subcategory.id for subcategory in taxonomy.subcategories]
    for given in [*extra.policies, *(name for policies in extra.communities.values() for name in policies)]:
        if given not in known:
            raise InputError(f"no category {given!r} to override", where=where, fix=did_you_mean(given, known))
