"""Where the alarms stand in a prompt: decided by the checkpoint's chat template, so that everybody agrees.

Paper section 4.2: the visual alarm directly after the last visual token, the textual one at the end of the last user
turn. How we differ: the rule is a preamble of the chat template, in Jinja, that rewrites ``messages`` before the
family's own template reads them. Training, evaluation and any server render the same prompt; text-only prompts carry
both alarms (visual first) at the end of the last user turn; a long conversation has one of each, not one per turn. What
a family writes right after a clip (an end mark, a line break) stays between the clip and its alarm.

Example:
    >>> template = place("{% for m in messages %}{{ m['content'] }}{% endfor %}", ("visual", "textual"))
    >>> remove(template)
    "{% for m in messages %}{{ m['content'] }}{% endfor %}"
"""

import re
from collections.abc import Sequence
from typing import Literal

Modality = Literal["visual", "textual"]
MODALITIES: tuple[Modality, ...] = ("visual", "textual")
ALARMS = {modality: f"<|{modality}_alarm|>" for modality in MODALITIES}
VISION = "['image', 'image_url', 'video', 'video_url', 'input_image', 'input_video']"

_START, _END = "{#- videosafety alarms: ", "{#- videosafety alarms end +#}"
_PREAMBLE = """{%- set alarm = namespace(turns=[], user=-1, clip=-1, part=-1) -%}
{%- for message in messages -%}
  {%- set turn = loop.index0 -%}
  {%- if message['role'] == 'user' -%}{%- set alarm.user = turn -%}{%- endif -%}
  {%- if message['content'] and message['content'] is not string -%}
    {%- for part in message['content'] -%}
      {%- if part['type'] in VISION -%}
        {%- set alarm.clip = turn -%}{%- set alarm.part = loop.index0 -%}
      {%- endif -%}
    {%- endfor -%}
  {%- endif -%}
{%- endfor -%}
{%- for message in messages -%}
  {%- set turn = loop.index0 -%}
  {%- set tail = (('VISUAL' if alarm.clip < 0 else '') ~ 'TEXTUAL') if turn == alarm.user else '' -%}
  {%- if turn != alarm.clip and not tail -%}
    {%- set alarm.turns = alarm.turns + [message] -%}
  {%- elif message['content'] is string -%}
    {%- set alarm.turns = alarm.turns + [dict(message, content=message['content'] ~ tail)] -%}
  {%- else -%}
    {%- set told = namespace(parts=[]) -%}
    {%- for part in message['content'] or [] -%}
      {%- set told.parts = told.parts + [part] -%}
      {%- if 'VISUAL' and turn == alarm.clip and loop.index0 == alarm.part -%}
        {%- set told.parts = told.parts + [{'type': 'text', 'text': 'VISUAL'}] -%}
      {%- endif -%}
    {%- endfor -%}
    {%- if tail -%}{%- set told.parts = told.parts + [{'type': 'text', 'text': tail}] -%}{%- endif -%}
    {%- set alarm.turns = alarm.turns + [dict(message, content=told.parts)] -%}
  {%- endif -%}
{%- endfor -%}
{%- set messages = alarm.turns -%}
"""


def place(template: str, modalities: Sequence[Modality]) -> str:
    """A chat template that places these alarms; one that already places some is made anew."""
    words = {m: ALARMS[m] if m in modalities else "" for m in MODALITIES}
    preamble = _PREAMBLE.replace("VISION", VISION).replace("VISUAL", words["visual"]).replace(
        "TEXTUAL", words["textual"])  # fmt: skip
    return f"{_START}{' '.join(modalities)} -#}}\n{preamble}{_END}{remove(template)}"


def remove(template: str) -> str:
    """The family's own template."""
    return template.partition(_END)[2] if template.startswith(_START) else template


def placed(template: str) -> tuple[Modality, ...]:
    """Which alarms a template places; none for a template that is not ours."""
    found = re.match(re.escape(_START) + r"([a-z ]*?) ?-#\}", template)
    return tuple(m for m in MODALITIES if found is not None and m in found[1].split())
