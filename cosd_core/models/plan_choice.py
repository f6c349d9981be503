"""Chooses the plan under which a model is run: from the table or a file with a check, or by the probe."""

import logging
import time

import torch

from cosd_core.models.comparison import UNCACHED, ProbedModel
from cosd_core.models.forward import Plan, input_device
from cosd_core.models.known_architectures import KNOWN_ARCHITECTURES
from cosd_core.models.plan_check import check_plan
from cosd_core.models.probe import Probe, candidates, first_plan
from cosd_core.models.remembered_plans import RememberedPlan

_TABLE = "from the table of known architectures"

_log = logging.getLogger("cosd.models")


@torch.inference_mode()
def choose_plan(probed: ProbedModel) -> Plan:
    """Choose the plan under which the cached passes of a model return what its uncached passes return.

    A plan that was found earlier for the configuration, or that the table of known architectures names, is
    checked by three to six passes. If there is none, or the check does not confirm it, the probe
    compares all plans. The passes run no forward hooks of the model, and change no random state. What was
    done is logged at level INFO by the logger ``cosd.models``.

    Raises:
        UnsupportedModelError: The model's passes fail, are not causal, or there is no such plan.
        GenerationError: There is not enough memory.
    """
    device = input_device(probed.model)
    began = time.perf_counter()
    passes = 0
    remembered = RememberedPlan(probed)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        likely, source = _likely(probed, remembered)
        if likely is not None:
            confirmed, passes = check_plan(probed, likely, short=source == _TABLE)
            if confirmed:
                _report(probed, likely, f"{source}, and checked", passes, began)
                return likely
        probe = Probe(probed)
        plan = probe.plan()
    remembered.write(plan)
    _report(probed, plan, "found by the probe", passes + probe.passes, began)
    return plan


def _likely(probed: ProbedModel, remembered: RememberedPlan) -> tuple[Plan | None, str]:
    """The plan that was found earlier, or else that of the table, and its origin; None if there is none.

    Plans that the model's traits do not allow are left out: a check does not show large windows.
    """
    allowed = {UNCACHED, *(plan for group in candidates(probed.traits) for plan in group)}
    if (plan := remembered.read()) in allowed:
        return plan, f"read from {remembered.file}"
    kind = type(probed.model)
    known = kind.__module__.startswith("transformers.models.") and kind.__name__ in KNOWN_ARCHITECTURES
    return (first_plan(probed.traits) if known else None), _TABLE


def _report(probed: ProbedModel, plan: Plan, how: str, passes: int, began: float) -> None:
    rows = "rows together" if plan.batched else "rows one by one"
    seconds = time.perf_counter() - began
    _log.info("%s: cache %s, %s: %s; %d passes, %.2f s", probed.named, plan, rows, how, passes, seconds)
