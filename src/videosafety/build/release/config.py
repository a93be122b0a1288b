"""What a release is called, what goes into it and whom it names: the ``publish`` part of a build's recipe.

Example:
    >>> PublishConfig(name="our-set", formats=("records", "webdataset")).media
    False
"""

import re
from typing import Literal, Self, get_args

from pydantic import model_validator

from videosafety.core.recipe import Config, knob

Format = Literal["records", "conversations", "grpo", "webdataset"]
FORMATS: tuple[Format, ...] = get_args(Format)
RESTRICTED = "restricted"  # the folder of a release that may hold what is harmful
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,94}")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


class PublishConfig(Config):
    """A release. Parquet files, manifest, card, croissant.json and the availability of clips are always written."""

    name: str = knob("my-video-safety-set", help="name of the data set: letters, digits, '.', '_' and '-'")
    version: str = knob("1.0.0", help="version of the data set, as in 1.0.0")
    date: str | None = knob(None, help="day of publication, YYYY-MM-DD; empty: no date stands in the release")
    licence: str | None = knob(None, help="licence of the labels and texts; clips keep their own")
    url: str | None = knob(None, help="where the data set can be found")
    contact: str | None = knob(None, help="who answers questions and takes down clips; printed in the card")
    report_to: str | None = knob(None, help="where people report illegal content; a general note if empty")
    media: bool = knob(False, help="whether the clips themselves go out; else their hashes alone")
    formats: tuple[Format, ...] = knob(FORMATS, help="what is written beside Parquet")
    shard_mb: int = knob(512, help="a WebDataset shard is closed when it is larger", unit="MB", ge=1)
    hash_list: str | None = knob(None, help="file with SHA-256 and perceptual hashes of what must never be shown")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not _NAME.fullmatch(self.name):
            raise ValueError("the name should be 1 to 95 letters, digits, '.', '_' or '-', beginning with a letter")
        if not re.fullmatch(r"\d+\.\d+\.\d+", self.version):
            raise ValueError("the version should be three numbers, as in 1.0.0")
        if self.date is not None and not _DATE.fullmatch(self.date):
            raise ValueError("the date should be a day, as in 2026-01-31")
        if len(set(self.formats)) < len(self.formats):
            raise ValueError("a format stands twice")
        return self
