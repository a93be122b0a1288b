"""Where the alarms stand in a prompt: decided by the checkpoint's chat template, so that everybody agrees.

Paper section 4.2: the visual alarm directly after the last visual token, the textual one at the end of the last user
turn. How we differ: the rule is a preamble of the chat template, in Jinja, that rewrites ``messages`` before the
family's own template reads them. Training, evaluation and any server render the same prompt; text-only prompts carry
both alarms (visual first) at the end of the last user turn; a long conversation has one of each, not one per turn. What
a family writes right after a clip (an end mark, a line break) stays between the clip and its alarm. An alarm joins the
words beside it, because some templates (LLaVA-OneVision) write a line break before each part of words.

Example:
    >>> template = place("{% for m in messages %}{{ m['content'] }}{% endfor %}", ("visual", "textual"))
    >>> remove(template)
    "{% for m in messages %}{{ m['content'] }}{% endfor %}"
"""

import re
from collections.abc import Sequence

from videosafety.core.alarm import ALARMS, MEDIA_TYPES, MODALITIES, Modality

_START = "{#- videosafety alarms: "
_END = "{#- videosafety alarms end #}\n"  # templates are compiled with trim_blocks: the line break is no output
_END_MARK = re.compile(r"\{#- videosafety alarms end \+?#\}\n?")
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
    {%- set told = namespace(parts=[], due='' if message['content'] else tail) -%}
    {%- for part in message['content'] or [] -%}
      {%- set after = tail if loop.last else '' -%}
      {%- if part['type'] == 'text' and (told.due or after) -%}
        {%- set told.parts = told.parts + [dict(part, text=told.due ~ part['text'] ~ after)] -%}
        {%- set after = '' -%}
      {%- else -%}
        {%- set told.parts = told.parts + ([{'type': 'text', 'text': told.due}] if told.due else []) + [part] -%}
      {%- endif -%}
      {%- set told.due = ('VISUAL' if turn == alarm.clip and loop.index0 == alarm.part else '') ~ after -%}
    {%- endfor -%}
    {%- if told.due -%}{%- set told.parts = told.parts + [{'type': 'text', 'text': told.due}] -%}{%- endif -%}
    {%- set alarm.turns = alarm.turns + [dict(message, content=told.parts)] -%}
  {%- endif -%}
{%- endfor -%}
{%- set messages = alarm.turns -%}
"""


def place(template: str, modalities: Sequence[Modality]) -> str:
    """A chat template that places these alarms; one that already places some is made anew."""
    words = {m: ALARMS[m] if m in modalities else "" for m in MODALITIES}
    preamble = _PREAMBLE.replace("VISION", str(list(MEDIA_TYPES))).replace("VISUAL", words["visual"]).replace(
        "TEXTUAL", words["textual"])  # fmt: skip
    return f"{_START}{' '.join(modalities)} -#}}\n{preamble}{_END}{remove(template)}"


def remove(template: str) -> str:
    """The family's own template."""
    return _END_MARK.split(template, maxsplit=1)[1] if template.startswith(_START) else template


def placed(template: str) -> tuple[Modality, ...]:
    """Which alarms a template places; none for a template that is not ours."""
    found = re.match(re.escape(_START) + r"([a-z ]*?) ?-#\}", template)
    return tuple(m for m in MODALITIES if found is not None and m in found[1].split())
