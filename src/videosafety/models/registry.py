"""Families by ``config.model_type``: a dict and a good error."""

from videosafety.core.errors import CheckpointError, did_you_mean
from videosafety.models import llava_onevision, qwen2_5_vl, qwen3_vl, smolvlm, video_llama3
from videosafety.models.family import Family, StockFamily

_ALL: tuple[StockFamily, ...] = (
    video_llama3.FAMILY, qwen2_5_vl.FAMILY, qwen3_vl.FAMILY, smolvlm.FAMILY, llava_onevision.FAMILY,
)  # fmt: skip
FAMILIES: dict[str, Family] = {family.model_type: family for family in _ALL}


def family_of(model_type: str, *, where: str) -> Family:
    """The family of a checkpoint.

    Raises:
        CheckpointError: no family knows this ``model_type``.
    """
    if model_type not in FAMILIES:
        hint = did_you_mean(model_type, FAMILIES)
        raise CheckpointError(f"no family for model_type {model_type!r} ({hint})", where=where,
                              fix="add one file in videosafety/models, see docs/extending.md")  # fmt: skip
    return FAMILIES[model_type]
