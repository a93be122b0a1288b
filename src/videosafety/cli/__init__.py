"""The command line: verbs, one call each; a file for each group of them.

Exit codes: 0 done; 1 a bug of ours; 2 something in the input is wrong (one sentence says what and how to mend it; a run
with damaged clips still finishes and counts them); 3 more than 2 % of the answers could not be scored; 130 interrupted.
"""

from videosafety.cli import (  # noqa: F401 - each adds its verbs
    attack,
    benchmarks,
    build,
    compare,
    data,
    evaluate,
    judge,
    judges,
    power,
    recipe,
    run,
    toy,
    video,
)
from videosafety.cli.main import main

__all__ = ["main"]
