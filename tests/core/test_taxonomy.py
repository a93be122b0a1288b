from pathlib import Path

import pytest
import yaml

from videosafety.core.errors import InputError
from videosafety.core.taxonomy import PACKAGED, Taxonomy, load_taxonomy

SMALL = """
name: small
version: 1
status: custom
risks:
  - id: one
    name: One
    subcategories:
      - {id: first, name: First, policy: general first}
      - {id: second, name: Second, policy: general second}
communities:
  es: {first: spanish first, second: spanish second}
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


@pytest.mark.parametrize("name", PACKAGED)
def test_six_risks_and_nineteen_subcategories_with_policies(name: str) -> None:
    taxonomy = load_taxonomy(name)
    assert len(taxonomy.risks) == 6
    assert len({subcategory.id for subcategory in taxonomy.subcategories}) == 19
    assert all(subcategory.policy.endswith(".") for subcategory in taxonomy.subcategories)
    assert Taxonomy.model_validate_json(taxonomy.model_dump_json(), strict=True) == taxonomy


def test_the_reconstruction_says_so() -> None:
    taxonomy = load_taxonomy()
    assert (taxonomy.name, taxonomy.status) == ("vse", "reconstruction")
    assert "not published" in taxonomy.note


def test_the_toy_rules() -> None:
    rules = load_taxonomy("toy").subcategories
    assert [rule.id for rule in rules] == [f"rule_{n:02d}" for n in range(1, 20)]
    assert [rule.kind for rule in rules] == ["sign"] * 14 + ["order"] * 3 + ["motion"] * 2
    assert [rule.id for rule in rules if rule.held_out] == ["rule_13", "rule_14"]


def test_a_subcategory_knows_its_risk() -> None:
    taxonomy = load_taxonomy()
    for risk in taxonomy.risks:
        assert all(taxonomy.risk_of(subcategory.id) is risk for subcategory in risk.subcategories)


def test_a_misspelt_category_gets_a_hint() -> None:
    with pytest.raises(InputError, match="no category 'frad' in the taxonomy 'vse'; did you mean 'fraud'"):
        load_taxonomy().subcategory("frad")
    with pytest.raises(InputError, match="did you mean 'fraud'"):
        load_taxonomy().risk_of("frad")


def test_communities_and_overrides_replace_single_policies_in_order(small: Path, tmp_path: Path) -> None:
    def policies(**options: object) -> list[str]:
        return [subcategory.policy for subcategory in load_taxonomy(small, **options).subcategories]  # type: ignore[arg-type]

    override = tmp_path / "override.yaml"
    override.write_text("policies: {second: ours}\ncommunities: {es: {first: our spanish}, kids: {first: strict}}\n")
    assert policies() == ["general first", "general second"]
    assert policies(community="es") == ["spanish first", "spanish second"]
    assert policies(community="fr") == ["general first", "general second"]  # a language without texts of its own
    assert policies(override=override) == ["general first", "ours"]
    assert policies(override=override, community="es") == ["our spanish", "ours"]
    assert policies(override=override, community="kids") == ["strict", "ours"]
    assert load_taxonomy(small, community="es").community == "es"
    with pytest.raises(InputError, match="no community 'kid' in"):
        load_taxonomy(small, community="kid")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"first": "second"}, "the id 'second' stands twice"),
        ({"id: one": "id: first"}, "the id 'first' stands twice"),
        ({"id: second": "id: Second!"}, "subcategories.1.id is 'Second!'"),
        ({"spanish first": "''"}, "communities.es.first"),
        ({"  es: {first": "  es: {frist"}, "no subcategory 'frist'; did you mean 'first'"),
        ({"policy: general first": "polic: x"}, "'risks.0.subcategories.0.policy' is missing"),
        ({"custom": "published"}, "status is 'published'"),
    ],
)
def test_a_bad_file_is_named_with_its_fault(small: Path, change: dict[str, str], said: str) -> None:
    text = SMALL
    for old, new in change.items():
        assert old in text
        text = text.replace(old, new, 1)
    small.write_text(text)
    with pytest.raises(InputError) as caught:
        load_taxonomy(small)
    assert said in str(caught.value)
    assert caught.value.where == str(small)


def test_an_override_of_nothing_is_refused(small: Path, tmp_path: Path) -> None:
    override = tmp_path / "o.yaml"
    for text in ("policies: {frist: x}", "communities: {es: {frist: x}}"):
        override.write_text(text)
        with pytest.raises(InputError, match="no category 'frist' to override; did you mean 'first'"):
            load_taxonomy(small, override=override)


def test_an_unknown_taxonomy_gets_a_hint(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown taxonomy 'vsee'; did you mean 'vse'"):
        load_taxonomy("vsee")
    with pytest.raises(InputError, match="no such file"):
        load_taxonomy(tmp_path / "none.yaml")


def test_the_packaged_files_are_plain_yaml() -> None:
    folder = Path(load_taxonomy.__code__.co_filename).parent
    for name in PACKAGED.values():
        assert yaml.safe_load((folder / name).read_text())["version"] == 1
