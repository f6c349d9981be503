"""Compares methods on tasks: tasks, methods, runs that can be continued, and reports with intervals.

::

    from cosd_core import CoSDDecoder
    from cosd_core.evaluation import AnswerFile, make_methods, make_report, read_task, run

    pair = CoSDDecoder.from_pretrained(draft="org/model-a", assistant="org/model-b")
    settings = {"draft_model": pair.draft, "assistant_model": list(pair.assistants)}
    methods = make_methods(["draft", "assistant", "average", "rule"], settings)
    outcomes = run(pair, methods, [read_task("sums.jsonl")], answers=AnswerFile("out/answers.jsonl"))
    make_report(outcomes, {"draft": "org/model-a"}).save("out")

The adapter for lm-evaluation-harness is in ``cosd_core.evaluation.lm_eval``.
"""

from cosd_core.evaluation.answers import Answer, AnswerFile
from cosd_core.evaluation.intervals import Interval
from cosd_core.evaluation.methods import METHODS, Method, make_methods, possible_methods, read_method
from cosd_core.evaluation.plots import save_plots
from cosd_core.evaluation.report import Line, Report, make_report
from cosd_core.evaluation.runner import Outcome, run
from cosd_core.evaluation.scoring import (
    ChoiceScoring,
    ExactScoring,
    NumberScoring,
    RegexScoring,
    Scoring,
    make_scoring,
)
from cosd_core.evaluation.tasks import BUNDLED, Item, Task, bundled_task, read_task, unasked_task

__all__ = [
    "BUNDLED",
    "METHODS",
    "Answer",
    "AnswerFile",
    "ChoiceScoring",
    "ExactScoring",
    "Interval",
    "Item",
    "Line",
    "Method",
    "NumberScoring",
    "Outcome",
    "RegexScoring",
    "Report",
    "Scoring",
    "Task",
    "bundled_task",
    "make_methods",
    "make_report",
    "make_scoring",
    "possible_methods",
    "read_method",
    "read_task",
    "run",
    "save_plots",
    "unasked_task",
]
