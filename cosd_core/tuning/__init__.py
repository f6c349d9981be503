"""Finds out whether fusing a pair helps on a task, and with which verifier.

::

    from cosd_core import CoSDDecoder
    from cosd_core.evaluation import read_task
    from cosd_core.tuning import tune

    pair = CoSDDecoder.from_pretrained(draft="org/model-a", assistant="org/model-b")
    tuning = tune(pair, read_task("questions.jsonl"), folder="out")
    print(*tuning.advice, *tuning.warnings)
    tuning.save("out")  # report.json, and tuned.json, which every constructor takes by read_settings
"""

from cosd_core.tuning.candidates import ALPHAS, BETAS, WEIGHTS, make_candidates
from cosd_core.tuning.decision_trie import Setting
from cosd_core.tuning.replay import ReplayCache
from cosd_core.tuning.report import CalibrationSummary, CandidateLine, GroupResult, ReplacementRate, Tuning
from cosd_core.tuning.selection import Table, choose, choose_nested
from cosd_core.tuning.tuner import tune

__all__ = [
    "ALPHAS",
    "BETAS",
    "WEIGHTS",
    "CalibrationSummary",
    "CandidateLine",
    "GroupResult",
    "ReplacementRate",
    "ReplayCache",
    "Setting",
    "Table",
    "Tuning",
    "choose",
    "choose_nested",
    "make_candidates",
    "tune",
]
