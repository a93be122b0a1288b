"""The rows of the build, from a file in a folder to a training example; each names the row that it was made of.

    collect  folder           -> Clip        a file with its hash, its source and its licence
    probe    Clip             -> Probed      what the file holds
    embed    Probed           -> Embedded    what it looks like, by a named embedder
    filter   all Embedded     -> Kept        neither static nor a copy; with its near-duplicate cluster
    describe Kept             -> Described   caption, visual label, category, evidence, by several annotators' votes
    ask      Described        -> Asked       queries with their labels, by language and kind
    think    Asked            -> Thought     the structured response that stage 3 teaches
    check    Thought          -> Thought     what passed the row gates
    mix      all              -> Mixed       splits and quotas

Ids grow by what was added: ``clip-4f…``, ``clip-4f….SH-en-0``. A row carries what later steps need and no pixels; media
are addressed by their hash (``store.py``).

Example:
    >>> Evidence(span=Span(start_s=1.0, end_s=2.5), what="a red sign")
    Evidence(span=Span(start_s=1.0, end_s=2.5), what='a red sign')
"""

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from videosafety.core.example import Example
from videosafety.core.labels import Safety
from videosafety.core.records import Identifier, Language, Record, Sample, Span

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Clip(Record):
    """A file as it was found. ``id`` follows from the content, ``path`` is relative to the folder of clips.

    A clip that was kept in the build's own store is there under its hash, and ``found_as`` is the path that it had.
    """

    id: Identifier
    path: str = Field(min_length=1, max_length=4096)
    sha256: Sha256
    num_bytes: int = Field(ge=0)
    source: str = Field(max_length=500)
    licence: str | None = Field(default=None, max_length=500)
    found_as: str | None = Field(default=None, min_length=1, max_length=4096)
    language: Language | None = None  # of the community that it comes from, where that is known


class Facts(Record):
    """What a media file holds, as ``video.probe`` found it."""

    kind: Literal["video", "image"]
    codec: str
    width_px: int = Field(ge=1)
    height_px: int = Field(ge=1)
    fps: float | None = Field(default=None, gt=0)
    num_frames: int = Field(ge=1)
    duration_s: float = Field(ge=0)
    has_audio: bool


class Probed(Record):
    """A clip that can be decoded."""

    id: Identifier
    clip: Clip
    facts: Facts


class Embedded(Record):
    """A clip with what it looks like. ``vectors`` mean what the embedder says: one hex string a frame.

    ``static_score`` in [0, 1] is how much changes over the clip; 0: nothing.
    """

    id: Identifier
    clip: Clip
    facts: Facts
    embedder: str
    static_score: float = Field(ge=0, le=1)
    vectors: tuple[str, ...] = Field(min_length=1)


class Kept(Record):
    """A clip that goes into the benchmark or into training. Clips of one cluster are near duplicates of each other."""

    id: Identifier
    clip: Clip
    facts: Facts
    cluster: Identifier


class Evidence(Record):
    """Something that can be seen, and when."""

    span: Span
    what: str = Field(min_length=1, max_length=500)


class Vote(Record):
    """What one annotator says of a clip."""

    annotator: str = Field(min_length=1, max_length=200)
    caption: str = Field(min_length=1, max_length=4000)
    visual: Safety
    category: str | None = Field(default=None, max_length=200)
    evidence: tuple[Evidence, ...] = ()

    @model_validator(mode="after")
    def _harm_has_a_category(self) -> Self:
        if (self.visual is Safety.HARMFUL) != (self.category is not None):
            raise ValueError("a category goes with a harmful clip, and with no other")
        return self


class Described(Record):
    """A clip with its description. ``votes`` are all that were given, in the order of the annotators.

    ``by`` says how the description was settled: all agreed, most did, an adjudicator decided, or a person; what is
    ``unsettled`` waits for one.
    """

    id: Identifier
    clip: Clip
    facts: Facts
    cluster: Identifier
    caption: str
    visual: Safety
    category: str | None = None
    evidence: tuple[Evidence, ...] = ()
    votes: tuple[Vote, ...] = Field(min_length=1)
    by: Literal["agreement", "majority", "adjudicator", "unsettled", "person"]


class Asked(Record):
    """A query about a clip. ``kind`` is its column of the template table; ``twin`` the id of its other form.

    ``reworded_by`` names the model that said the template's words in another way; None: they stand.
    """

    id: Identifier
    parent: Identifier
    sample: Sample
    kind: Literal["HH", "SH", "composed", "SafeQ", "borderline"]
    template: str = Field(min_length=1, max_length=200)
    twin: Identifier | None = None
    reworded_by: str | None = Field(default=None, max_length=200)
    described: Described


class Thought(Record):
    """A query with the response that stage 3 teaches: thinking, answer, and both labels, in the query's language."""

    id: Identifier
    parent: Identifier
    asked: Asked
    think: str = Field(min_length=1, max_length=20_000)
    answer: str = Field(min_length=1, max_length=20_000)
    evidence: tuple[Evidence, ...] = ()
    author: str = Field(min_length=1, max_length=200)


class Mixed(Record):
    """A row of the release: an item of the benchmark, or a training example of a stage's split."""

    id: Identifier
    parent: Identifier
    split: Literal["eval", "sft", "cot", "rl"]
    asked: Asked
    example: Example | None = None

    @model_validator(mode="after")
    def _training_has_an_answer(self) -> Self:
        if (self.split == "eval") != (self.example is None):
            raise ValueError("a training row holds an example, an item of the benchmark none")
        return self
