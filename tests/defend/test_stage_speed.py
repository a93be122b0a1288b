"""A whole stage with grouped rows and kept vision features: the same training, and a tower that works once a clip."""

from pathlib import Path

import pytest
import torch
from stagekit import quick, weights

from videosafety.core.errors import InputError
from videosafety.core.example import Example
from videosafety.defend.lengths import kept_lengths
from videosafety.defend.rows import Rows
from videosafety.defend.sft import FEATURES, train_stage
from videosafety.models.checkpoint import load
from videosafety.models.features import FeatureCache

GROUPED = {"max_steps": 0, "epochs": 2.0, "group_by_length": True}


def test_kept_features_train_the_same_weights_and_the_tower_sees_each_clip_once(
    examples: list[Example], base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = [*[one for one in examples if one.media][:4], *[one for one in examples if not one.media][:4]]
    computed: list[str] = []
    put = FeatureCache.put
    monkeypatch.setattr(FeatureCache, "put", lambda self, key, *a, **k: (computed.append(key), put(self, key, *a, **k)))
    plain = train_stage("at_sft", quick(**GROUPED), some, base=base, out=tmp_path / "plain")
    assert computed == []
    kept = train_stage("at_sft", quick(**GROUPED, feature_cache_gib=0.1), some, base=base, out=tmp_path / "kept")
    assert len(computed) == len(set(computed)) == len({media for one in some for media in one.media})
    found, stock = weights(kept.folder), weights(plain.folder)
    for name in stock:
        torch.testing.assert_close(found[name], stock[name], rtol=1e-4, atol=1e-5)
    assert len(list((tmp_path / FEATURES).iterdir())) == len(computed)
    num = len(computed)
    train_stage("cot", quick("cot", feature_cache_gib=0.1), some, base=str(kept.folder), out=tmp_path / "next")
    assert len(computed) == num  # the next stage has the same vision


def test_a_family_that_cannot_keep_features_is_refused_before_it_trains(
    examples: list[Example], tmp_path: Path
) -> None:
    from tinyfamilies import tiny_checkpoint

    base = tiny_checkpoint("smolvlm2", tmp_path / "base", tied=False)
    with pytest.raises(InputError, match="smolvlm2 cannot be kept"):
        train_stage("at_sft", quick(feature_cache_gib=0.1), examples[:4], base=str(base), out=tmp_path / "out")


def test_lengths_are_estimated_once_for_a_run(examples: list[Example], base: str, tmp_path: Path) -> None:
    rows, file = Rows(examples[:6], checkpoint=load(base), structured=False), tmp_path / "lengths.json"
    lengths = kept_lengths(rows, file)
    rows.examples = []
    assert kept_lengths(rows, file) == lengths
    assert len(lengths) == 6
