"""The alarms by name: two tokens that stand in prompts, four verdict tokens that servers are asked about.

Paper section 4.2 for the alarms; the verdict tokens are ours (models/fold.py). Here, because the side that trains
(models/) and the side that reads from a server (llm/readout.py) must agree and share nothing else.

Example:
    >>> ALARMS["visual"], VERDICTS["visual"]
    ('<|visual_alarm|>', ('<|visual_harmful|>', '<|visual_safe|>'))
"""

from typing import Literal

Modality = Literal["visual", "textual"]
MODALITIES: tuple[Modality, ...] = ("visual", "textual")
ALARMS: dict[Modality, str] = {modality: f"<|{modality}_alarm|>" for modality in MODALITIES}
VERDICTS: dict[Modality, tuple[str, str]] = {m: (f"<|{m}_harmful|>", f"<|{m}_safe|>") for m in MODALITIES}
TOKENS = (*ALARMS.values(), *(token for pair in VERDICTS.values() for token in pair))
MEDIA_TYPES = ("image", "image_url", "video", "video_url", "input_image", "input_video")  # of a message's parts
SIDECAR = "alarm_heads.safetensors"
FORMAT = "1"
