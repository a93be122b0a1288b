"""People: what they look at, what they say, and what becomes of it."""
