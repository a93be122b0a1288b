"""Recipes: one YAML file is one run somebody made. Every knob has its unit and, where there is one, its paper value.

A recipe is read strictly: unknown and repeated keys, wrong types and NaN are errors that name the file, the key and
what was probably meant. YAML here is the small, unsurprising part: ``1e-6`` is a number, only ``true`` and ``false``
are truth values, dates stay text; anchors and tags are refused.

Example:
    >>> class Train(Config):
    ...     learning_rate: float = knob(1e-6, unit="1/step", paper=1e-6, help="of the language model", gt=0)
    >>> load_recipe("recipes/toy.yaml", Train, overrides=["learning_rate=1e-3"]).learning_rate
    0.001
"""

import hashlib
import json
import re
from collections.abc import Hashable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from videosafety.core.errors import RecipeError, did_you_mean
from videosafety.core.explain import explain
from videosafety.core.store import canonical_json

T = TypeVar("T", bound=BaseModel)

FOLDERS: tuple[Path, ...] = (  # here, in an installed package, in a clone
    Path("recipes"), Path(__file__).parents[1] / "recipes", Path(__file__).parents[3] / "recipes",
)  # fmt: skip
REQUIRED = "required"  # the default that ``describe`` shows for a knob without one


class Config(BaseModel):
    """Base of every stage's config: frozen, forbids unknown keys, rejects NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)


def knob(
    default: Any = ...,
    *,
    help: str,
    unit: str | None = None,
    paper: Any = None,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
) -> Any:
    """A field of a Config: its default (``...`` = required), unit, paper value (None = none known), help and bounds."""
    extra: dict[str, Any] = {"unit": unit, "paper": paper}
    return Field(default, description=help, json_schema_extra=extra, ge=ge, gt=gt, le=le, lt=lt)


def load_recipe(path_or_name: str | Path, schema: type[T], *, overrides: Sequence[str] = ()) -> T:
    """Read a recipe.

    Args:
        path_or_name: a file, or the name of one in ``recipes/`` (``toy`` for ``recipes/toy.yaml``).
        schema: the config class.
        overrides: ``key.sub=value`` with a YAML value; later ones win.

    Raises:
        RecipeError: no such recipe, not YAML (with the line), or a key or value that the schema refuses.
    """
    path = _find(path_or_name)
    where = f"{path} with {', '.join(overrides)}" if overrides else str(path)
    return with_overrides(read_yaml(path), overrides, schema=schema, where=where)


def with_overrides(data: Mapping[str, Any], overrides: Sequence[str], *, schema: type[T], where: str) -> T:
    """A config from plain data with some keys set anew; ``data`` itself is left as it is.

    Raises:
        RecipeError: an override that is not ``key=value``, or a key or value that the schema refuses.
    """
    content: dict[str, Any] = json.loads(json.dumps(data))
    for override in overrides:
        _override(content, override)
    try:
        return schema.model_validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        faults = explain(error, kind=schema)
        if len(faults) == 1:
            raise RecipeError(faults[0], where=where, fix="mend this key") from error
        listed = "".join(f"\n  {fault}" for fault in faults)
        raise RecipeError(f"{len(faults)} faults", where=where, fix=f"mend these keys:{listed}") from error


def fingerprint(config: BaseModel) -> str:
    """Equal configs, equal fingerprints: the first 16 hex digits of the SHA-256 of the canonical JSON."""
    return hashlib.sha256(canonical_json(config)).hexdigest()[:16]


class KnobRow(NamedTuple):
    """One knob as a row of a table. ``paper`` is None where the paper gives no value."""

    key: str
    type: str
    default: Any
    unit: str | None
    paper: Any
    help: str


def describe(schema: type[BaseModel]) -> list[KnobRow]:
    """Every knob of a schema with its dotted key, nested configs spelled out."""
    return _rows(schema, prefix="", defaults=None)


def _rows(schema: type[BaseModel], *, prefix: str, defaults: BaseModel | None) -> list[KnobRow]:
    rows: list[KnobRow] = []
    for name, field in schema.model_fields.items():
        default = getattr(defaults, name) if defaults is not None else _default(field)
        if (nested := _nested(field.annotation)) is not None:
            inner = default if isinstance(default, nested) else None
            rows += _rows(nested, prefix=f"{prefix}{name}.", defaults=inner)
            continue
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        unit = extra.get("unit")
        typed, said = _type_name(field.annotation), field.description or ""
        rows.append(KnobRow(prefix + name, typed, default, str(unit) if unit else None, extra.get("paper"), said))
    return rows


def _default(field: FieldInfo) -> Any:
    return REQUIRED if field.is_required() else field.get_default(call_default_factory=True, validated_data={})


def _nested(annotation: object) -> type[BaseModel] | None:
    """The config that a field holds, optional or not; None for values and for containers."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, UnionType):
        parts = [part for part in get_args(annotation) if part is not NoneType]
        return _nested(parts[0]) if len(parts) == 1 else None
    return None


def _type_name(annotation: Any) -> str:
    """A type as a person writes it: ``int``, ``tuple[str, ...]``, ``float | None``, ``group | batch``."""
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return " | ".join(str(member.value) for member in annotation)
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " | ".join(str(part) for part in parts)
    if origin in (Union, UnionType):
        return " | ".join(_type_name(part) for part in parts)
    if origin is not None:
        return f"{getattr(origin, '__name__', origin)}[{', '.join(_type_name(part) for part in parts)}]"
    if annotation is Ellipsis:
        return "..."
    return "None" if annotation is NoneType else str(getattr(annotation, "__name__", annotation))


def _find(path_or_name: str | Path) -> Path:
    path = Path(path_or_name)
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        return path
    for folder in FOLDERS:
        if (named := folder / f"{path_or_name}.yaml").is_file():
            return named
    known = {recipe.stem for folder in FOLDERS for recipe in folder.glob("*.yaml")}
    raise RecipeError(f"no such recipe {str(path_or_name)!r}", fix=did_you_mean(str(path_or_name), known))


def _override(data: dict[str, Any], override: str) -> None:
    """Set one ``key.sub=value`` in ``data``."""
    key, equals, value = override.partition("=")
    *outer, last = key.strip().split(".")
    if not equals or not all([*outer, last]):
        raise RecipeError(f"the override {override!r} is not key=value", fix="write it as train.steps=100")
    place: Any = data
    for depth, name in enumerate([*outer, last]):
        if not isinstance(place, dict):
            above = ".".join(outer[:depth])
            raise RecipeError(f"the override {override!r} goes into {above!r}, which is a value", fix=f"set {above}=…")
        if depth < len(outer):
            if place.get(name) is None:
                place[name] = {}
            place = place[name]
    place[last] = parse_yaml(value, where=f"override {override!r}")


# YAML


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file whose top is a mapping (an empty file is an empty one). Raises RecipeError, with the line."""
    try:
        if path.exists() and not path.is_file():
            raise RecipeError("cannot be read: is not an ordinary file", where=str(path), fix="give the path of a file")
        text = path.read_bytes().decode()
    except FileNotFoundError:
        raise RecipeError("no such file", where=str(path), fix="check the path") from None
    except UnicodeDecodeError as error:
        raise RecipeError(f"not UTF-8 (byte {error.start + 1})", where=str(path), fix="save it as UTF-8") from error
    except OSError as error:
        raise RecipeError(f"cannot be read: {error.strerror}", where=str(path), fix="check the path") from error
    data = parse_yaml(text, where=str(path))
    if not isinstance(data, Mapping | None):
        raise RecipeError("the top is not a mapping", where=str(path), fix="write key: value lines")
    return dict(data or {})


def parse_yaml(text: str, *, where: str) -> Any:
    """A value in this YAML. Raises RecipeError, with the line."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{where}:{mark.line + 1}" if mark else where
        raise RecipeError(f"not valid YAML: {error.problem}", where=place, fix="mend this line") from error
    except (yaml.YAMLError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise RecipeError(f"not valid YAML: {reason}", where=where, fix="mend the file") from error
    except RecursionError:
        raise RecipeError("not valid YAML: nested too deeply", where=where, fix="mend the file") from None


class _Loader(yaml.SafeLoader):
    """SafeLoader without surprises: see the module's docstring."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "anchor", None) is not None or getattr(event, "tag", None) is not None:
            problem = "anchors, aliases and tags are not allowed"
            raise yaml.constructor.ConstructorError(None, None, problem, event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                raise yaml.constructor.ConstructorError(None, None, "a key is not text", key.start_mark)
            if key.value in seen:
                problem = f"the key {key.value!r} stands twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


for _tag, _pattern, _first in (
    ("null", r"~|null|", ["~", "n", ""]),
    ("bool", r"true|false", ["t", "f"]),
    ("int", r"[-+]?(0|[1-9][0-9]*)", list("-+0123456789")),
    ("float", r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?", list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _first)
