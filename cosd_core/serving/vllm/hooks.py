"""The places of vLLM that the plugin replaces or relies on, checked before an engine starts.

Most of them are private to vLLM and change between versions. Where one has changed, vLLM might decode as if
the plugin were not there, so the engine must not start.
"""

import inspect
from importlib import import_module
from typing import Any

from cosd_core.errors import MissingExtraError

TESTED = ("0.32.0",)
"""The versions of vLLM that the tests have run with."""

HOOKS: dict[str, tuple[str, ...]] = {
    # replaced by the plugin
    "vllm.engine.arg_utils:EngineArgs.create_engine_config": ("self", "usage_context", "headless"),
    "vllm.v1.engine.input_processor:InputProcessor._validate_params": ("self", "params", "supported_tasks"),
    # overridden in our worker, model runner, drafter and scheduler
    "vllm.v1.worker.cpu_worker:CPUWorker.init_device": ("self",),
    "vllm.v1.worker.gpu_model_runner:GPUModelRunner._sample": ("self", "logits", "spec_decode_metadata"),
    "vllm.v1.worker.gpu_model_runner:GPUModelRunner._input_fits_in_drafter": ("self", "common_attn_metadata"),
    "vllm.v1.worker.gpu_model_runner:GPUModelRunner.sample_tokens": ("self", "grammar_output"),
    "vllm.v1.spec_decode.llm_base_proposer:SpecDecodeBaseProposer._sample_draft_tokens": (
        "self", "hidden_states", "sampling_metadata",
    ),
    "vllm.v1.spec_decode.llm_base_proposer:SpecDecodeBaseProposer.prepare_inputs_padded": (
        "self", "common_attn_metadata", "spec_decode_metadata", "valid_sampled_tokens_count",
    ),
    "vllm.v1.core.sched.scheduler:Scheduler.update_from_output": (
        "self", "scheduler_output", "model_runner_output",
    ),
    # called by them, or by vLLM between them
    "vllm.v1.sample.sampler:Sampler.compute_logprobs": ("logits",),
    "vllm.v1.sample.sampler:Sampler.gather_logprobs": ("logprobs", "num_logprobs", "token_ids"),
    "vllm.distributed.aux_output_connector.connector:AuxOutputSchedulerConnector.take_output": (
        "self", "request", "output",
    ),
    "vllm.distributed.aux_output_connector.connector:AuxOutputSchedulerConnector.build_connector_meta": (
        "self", "scheduler_output", "requests",
    ),
}  # fmt: skip
"""Functions by module and name, and the names of their parameters."""

FIELDS: dict[str, tuple[str, ...]] = {
    "vllm.v1.outputs:ModelRunnerOutput": (
        "sampled_token_ids", "req_id_to_index", "aux_output_connector_output",
    ),
    "vllm.v1.outputs:SamplerOutput": ("sampled_token_ids", "logprobs_tensors"),
    "vllm.v1.spec_decode.metadata:SpecDecodeMetadata": ("draft_token_ids", "num_draft_tokens"),
    "vllm.v1.engine:EngineCoreOutput": ("routed_experts",),
    "vllm.outputs:CompletionOutput": ("routed_experts",),
}  # fmt: skip
"""Classes by module and name, and fields that they must have."""


def check_hooks() -> None:
    """Refuse a vLLM that was not tested, or whose hooks differ.

    Raises:
        MissingExtraError: With the version, or the place that differs.
    """
    version = import_module("vllm").__version__
    if version.partition("+")[0] not in TESTED:
        raise MissingExtraError(
            f"cosd's plugin was tested with vLLM {', '.join(TESTED)}, not with {version}: it replaces "
            "private parts of vLLM, and decodes only with versions that its tests have run with"
        )
    for place, expected in HOOKS.items():
        found = tuple(inspect.signature(_found(place)).parameters)
        if found != expected:
            raise _differs(place, f"has the parameters {', '.join(found)}, not {', '.join(expected)}")
    for place, names in FIELDS.items():
        fields = inspect.get_annotations(_found(place))
        if missing := [name for name in names if name not in fields]:
            raise _differs(place, f"has no {missing[0]}")


def _found(place: str) -> Any:
    module, _, path = place.partition(":")
    try:
        value: Any = import_module(module)
        for name in path.split("."):
            value = inspect.getattr_static(value, name) if inspect.isclass(value) else getattr(value, name)
    except (ImportError, AttributeError) as error:
        raise _differs(place, "is missing") from error
    return value.__func__ if isinstance(value, staticmethod | classmethod) else value


def _differs(place: str, how: str) -> MissingExtraError:
    return MissingExtraError(
        f"{place} {how}: this vLLM is not the {' or '.join(TESTED)} that cosd's plugin was tested with, and "
        "cosd might have no effect in it"
    )
