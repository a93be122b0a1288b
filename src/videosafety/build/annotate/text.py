"""Text that somebody wrote about a clip, a model or a person, made plain: it ends in data sets, pages and terminals.

Example:
    >>> cleaned("a red\\x1b[31m  sign")
    'a red[31m sign'
"""

import unicodedata

JOINERS = "\u200c\u200d"  # Indic and Persian words, and emoji, need them


def cleaned(text: str) -> str:
    """Text without control, bidi and other invisible characters, one space between words."""
    kept = (c if c in JOINERS or not unicodedata.category(c).startswith("C") else " " if c.isspace() else ""
            for c in text)  # fmt: skip
    return " ".join("".join(kept).split())
