"""Packages that only some trainings use: a missing one is said in a sentence, before anything is loaded.

Example:
    >>> need("json", "this example")
"""

import importlib.util

from videosafety.core.errors import DependencyError


def need(package: str, what_for: str) -> None:
    """Raises DependencyError: ``package`` is not installed."""
    if importlib.util.find_spec(package) is None:
        raise DependencyError(f"{what_for} need the package {package}", fix=f"pip install {package}")
