"""A run folder becomes one static page: ``build`` for the browser, ``headline`` for the terminal."""

from videosafety.report.build import build
from videosafety.report.headline import headline

__all__ = ["build", "headline"]
