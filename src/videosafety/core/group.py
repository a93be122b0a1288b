"""A group of rollouts: what was said to one prompt at one step, how each was scored, and what was learnt from it.

One line of ``rollouts.jsonl``. Scores can be computed again from it under other rewards, without the model
(``defend/replay.py``).

Example:
    >>> said = Response(sample_id="a", arm="train", model="m", text="A dax.", stop_reason="stop")
    >>> asked = Sample(id="a", query="What is it?", language="en",
    ...                labels=Labels(visual="safe", textual="safe", request="safe"))
    >>> one = Group(step=1, sample=asked, responses=(said,), scores=({"format": 0.0},), rewards=(0.0,),
    ...             advantages=(0.0,))
"""

from typing import Self

from pydantic import Field, model_validator

from videosafety.core.records import Record, Response, Sample


class Group(Record):
    """The rollouts of one prompt: one response, dict of components, reward and advantage for each.

    A component that was not scored is None; so is the reward of a response that was left out.
    """

    step: int = Field(ge=0)
    sample: Sample
    responses: tuple[Response, ...] = Field(min_length=1)
    scores: tuple[dict[str, float | None], ...]
    rewards: tuple[float | None, ...]
    advantages: tuple[float, ...]

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        sizes = {len(part) for part in (self.responses, self.scores, self.rewards, self.advantages)}
        if len(sizes) > 1:
            raise ValueError("responses, scores, rewards and advantages differ in number")
        for response in self.responses:
            if response.sample_id != self.sample.id:
                raise ValueError(f"a response to {response.sample_id!r} in the group of {self.sample.id!r}")
        return self
