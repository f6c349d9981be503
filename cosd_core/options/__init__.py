"""The options of generation, chats and loading: frozen values, validated, unknown names rejected.

Values that are not valid raise :class:`InvalidOptionError`.
"""

from cosd_core.options.base import Options, in_one_line, named, unknown_option, without_nones
from cosd_core.options.checks import (
    check_adapters,
    check_calibration,
    check_counts,
    check_flags,
    check_number,
)
from cosd_core.options.generation import (
    ANSWER_TOKENS,
    CallKwargs,
    ChatOptions,
    GenerationKwargs,
    GenerationOptions,
    Probability,
    SyncCallKwargs,
)
from cosd_core.options.loading import CODE_OPTIONS, SECRET_OPTIONS, LoadingKwargs, LoadingOptions

__all__ = [
    "ANSWER_TOKENS",
    "CODE_OPTIONS",
    "SECRET_OPTIONS",
    "CallKwargs",
    "ChatOptions",
    "GenerationKwargs",
    "GenerationOptions",
    "LoadingKwargs",
    "LoadingOptions",
    "Options",
    "Probability",
    "SyncCallKwargs",
    "check_adapters",
    "check_calibration",
    "check_counts",
    "check_flags",
    "check_number",
    "in_one_line",
    "named",
    "unknown_option",
    "without_nones",
]
