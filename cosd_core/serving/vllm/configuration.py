"""What an engine with CoSD must be: asked for by its settings, and checked before it starts."""

from typing import Any

from cosd_core.errors import InvalidOptionError, quoted
from cosd_core.serving.vllm.alignment import aligned

SCHEDULER = "cosd_core.serving.vllm.scheduler.CoSDScheduler"
WORKER = "cosd_core.serving.vllm.worker.CoSDWorker"


def choose_classes(engine_args: Any) -> None:
    """Name our worker and our scheduler in ``EngineArgs``, and synchronous scheduling.

    Raises:
        InvalidOptionError: The user asked for others.
    """
    for name, ours, fine in (
        ("worker_cls", WORKER, "auto"),
        ("scheduler_cls", SCHEDULER, None),
        ("async_scheduling", False, None),
    ):
        given = getattr(engine_args, name)
        if given not in (ours, fine):
            raise InvalidOptionError(f"{name}={quoted(given)} cannot be used with CoSD: leave it out")
        setattr(engine_args, name, ours)


def check_configuration(config: Any) -> None:
    """Refuse an engine in which our methods would have no effect, or that was not tested.

    Args:
        config: vLLM's ``VllmConfig``.

    Raises:
        InvalidOptionError: With the option and what would be right.
        VocabularyMismatchError: Draft and assistant have different tokens.
    """
    for wrong, message in _problems(config):
        if wrong:
            raise InvalidOptionError(f"vLLM with cosd: {message}")
    aligned(config)


def _problems(config: Any) -> list[tuple[bool, str]]:
    from vllm.platforms import current_platform

    speculative, parallel = config.speculative_config, config.parallel_config
    if speculative is None or speculative.method != "draft_model":
        return [(
            True,
            'speculative_config should be {"method": "draft_model", "model": DRAFT, '
            '"num_speculative_tokens": K}; the model that is served is the assistant',
        )]  # fmt: skip
    draft, assistant = speculative.draft_model_config, config.model_config
    return [
        (not current_platform.is_cpu(), "the plugin was tested on CPUs only, not on GPUs"),
        (config.use_v2_model_runner, "it needs Model Runner V1: set VLLM_USE_V2_MODEL_RUNNER=0"),
        (config.scheduler_config.async_scheduling, "it needs synchronous scheduling: async_scheduling=False"),
        (
            (parallel.worker_cls, config.scheduler_config.scheduler_cls) != (WORKER, SCHEDULER),
            "it needs its own worker and scheduler",
        ),
        (
            max(parallel.tensor_parallel_size, parallel.pipeline_parallel_size, parallel.data_parallel_size)
            > 1,
            "it was tested with one worker only: no tensor, pipeline or data parallelism",
        ),
        (speculative.use_heterogeneous_vocab, "both models need one vocabulary: no use_heterogeneous_vocab"),
        (
            speculative.rejection_sample_method != "standard",
            "it decides in place of the rejection sampler: no rejection_sample_method",
        ),
        (speculative.parallel_drafting, "no parallel_drafting: the draft writes one token after another"),
        (speculative.disable_padded_drafter_batch, "no disable_padded_drafter_batch"),
        (
            speculative.num_speculative_tokens_per_batch_size is not None
            or speculative.enable_adaptive_verification,
            "num_speculative_tokens is one number: no num_speculative_tokens_per_batch_size, no "
            "enable_adaptive_verification",
        ),
        (
            draft.max_model_len < assistant.max_model_len,
            f"the draft reads {draft.max_model_len} tokens and the assistant {assistant.max_model_len}: "
            f"max_model_len should be at most {draft.max_model_len}",
        ),
        (config.lora_config is not None, "LoRA adapters reach the assistant alone"),
        (config.kv_transfer_config is not None, "it was not tested with the transfer of keys and values"),
        (config.aux_output_config.enabled, "it uses the place of enable_return_routed_experts itself"),
        (assistant.return_sampling_mask, "it was not tested with return_sampling_mask"),
        (assistant.logprobs_mode != "raw_logprobs", "logprobs_mode should be raw_logprobs"),
        (
            any(each.is_multimodal_model or each.is_hybrid or each.is_encoder_decoder
                for each in (draft, assistant)),
            "it was tested with text decoders with attention only",
        ),
        (assistant.enable_prompt_embeds, "it was not tested with prompt_embeds"),
    ]  # fmt: skip
