"""The settings of a server, and those that a request may change.

A server's settings are the entry ``cosd`` of vLLM's ``additional_config``; a request's are in ``extra_args``
of its ``SamplingParams``, which HTTP requests call ``vllm_xargs``.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Self

from cosd_core.errors import InvalidOptionError, quoted
from cosd_core.options.base import Options
from cosd_core.verifiers import (
    AssistantVerifier,
    ConfidenceVerifier,
    DraftVerifier,
    RuleVerifier,
    TreeVerifier,
    calibration_of,
)

KEY = "cosd"
"""The entry of ``additional_config``; without it vLLM decodes as it does without the plugin."""

VERIFIERS = (RuleVerifier.name, TreeVerifier.name, DraftVerifier.name, AssistantVerifier.name)


class RequestSettings(Options):
    """What a request may change; None leaves the server's setting.

    Attributes:
        verifier: ``"rule"``, ``"tree"``, ``"draft"`` or ``"assistant"``.
        alpha: As in :class:`RuleVerifier`.
        beta: As in :class:`RuleVerifier`.

    Raises:
        InvalidOptionError: A name is unknown, or a value wrong.
    """

    verifier: str | None = None
    alpha: float | None = None
    beta: float | None = None


class ServerSettings(Options):
    """The settings of a server.

    Attributes:
        verifier: The verifier of requests that name none.
        alpha: Of the rule, for requests that give none.
        beta: Of the rule, for requests that give none.
        tree_path: The file of a tree, for ``verifier="tree"``; a request can name no file.
        calibration: The temperatures of the two models' confidences, the draft's first; None: the tree's
            own, else 1.

    Raises:
        InvalidOptionError: A name is unknown, or a value wrong.
        VerifierFileError: The tree cannot be read.
    """

    verifier: str = RuleVerifier.name
    alpha: float = RuleVerifier().alpha
    beta: float = RuleVerifier().beta
    tree_path: str | None = None
    calibration: list[float] | None = None

    def model_post_init(self, _context: Any) -> None:
        """Check all of it now: an engine that cannot serve does not start."""
        RuleVerifier(self.alpha, self.beta)
        calibration_of(self.verifier_for(None), self.calibration, 2)
        if self.tree is not None:
            calibration_of(self.tree, self.calibration, 2)

    @classmethod
    def of(cls, additional_config: Any) -> Self | None:
        """The settings in vLLM's ``additional_config``; None where cosd is not asked for."""
        if not isinstance(additional_config, Mapping) or KEY not in additional_config:
            return None
        given = additional_config[KEY]
        if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
            raise InvalidOptionError(
                f"additional_config[{KEY!r}]={quoted(given)} should be a dictionary of settings; {{}} for "
                "the defaults"
            )
        return cls(**given)

    @cached_property
    def tree(self) -> TreeVerifier | None:
        """The tree of ``tree_path``."""
        return None if self.tree_path is None else TreeVerifier.load(self.tree_path)

    def verifier_for(self, extra_args: Mapping[str, Any] | None) -> ConfidenceVerifier:
        """The verifier of a request.

        Args:
            extra_args: Those of its ``SamplingParams``.

        Raises:
            InvalidOptionError: A name is unknown, a value wrong, or a setting belongs to another verifier.
        """
        asked = RequestSettings(**(extra_args or {}))
        name = self.verifier if asked.verifier is None else asked.verifier
        rule = {"alpha": asked.alpha, "beta": asked.beta}
        for setting, value in rule.items():
            if value is not None and name != RuleVerifier.name:
                raise InvalidOptionError(
                    f'{setting}={quoted(value)} is a setting of verifier="rule", but verifier={quoted(name)}'
                )
        match name:
            case RuleVerifier.name:
                return RuleVerifier(
                    self.alpha if asked.alpha is None else asked.alpha,
                    self.beta if asked.beta is None else asked.beta,
                )
            case TreeVerifier.name if self.tree is not None:
                return self.tree
            case TreeVerifier.name:
                raise InvalidOptionError('verifier="tree" needs tree_path among the settings of the server')
            case DraftVerifier.name:
                return DraftVerifier()
            case AssistantVerifier.name:
                return AssistantVerifier()
        raise InvalidOptionError(
            f"verifier={quoted(name)} should be one of {', '.join(VERIFIERS)}; vLLM fuses one draft and one "
            "assistant by their confidences"
        )

    def calibration_for(self, verifier: ConfidenceVerifier) -> tuple[float, ...]:
        """The temperatures of both models' confidences for a verifier, the draft's first."""
        return calibration_of(verifier, self.calibration, 2)
