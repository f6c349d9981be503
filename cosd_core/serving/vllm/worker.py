"""vLLM's worker, model runner and drafter with CoSD's decisions; vLLM loads the worker by its name."""

from typing import Any

import torch
from vllm.v1.outputs import LogprobsTensors, ModelRunnerOutput, SamplerOutput
from vllm.v1.spec_decode.draft_model import DraftModelProposer
from vllm.v1.worker.cpu_model_runner import CPUModelRunner
from vllm.v1.worker.cpu_worker import CPUWorker

from cosd_core.serving.vllm.alignment import aligned
from cosd_core.serving.vllm.batch import Batch
from cosd_core.serving.vllm.grammar import Grammars
from cosd_core.serving.vllm.hooks import check_hooks
from cosd_core.serving.vllm.provenance import DecidedToken, to_array
from cosd_core.serving.vllm.settings import ServerSettings

_NONE = -1
"""vLLM's token id for a place of its output without a token."""


class CoSDWorker(CPUWorker):  # type: ignore[misc]
    """vLLM's worker for the processor."""

    def init_device(self) -> None:
        """Make the model runner, and give it and its drafter our methods."""
        check_hooks()
        super().init_device()
        assert type(self.model_runner) is CPUModelRunner, "checked when the engine was configured"
        # vLLM makes both objects itself; their classes differ from ours in methods alone.
        self.model_runner.__class__ = CoSDModelRunner
        self.model_runner.begin_cosd()


class CoSDModelRunner(CPUModelRunner):  # type: ignore[misc]
    """Decides what stands in place of the rejection sampler, and records who wrote it."""

    def begin_cosd(self) -> None:
        """Read the settings; both vocabularies were compared when the engine was configured."""
        settings = ServerSettings.of(self.vllm_config.additional_config)
        assert settings is not None, "the plugin chooses this worker only with settings"
        alignment = aligned(self.vllm_config)
        vocabulary = alignment.vocabularies[0]
        grammars = Grammars(self.vllm_config, vocabulary)
        self.cosd_batch = Batch(settings, vocabulary, alignment.admitted, grammars.matcher)
        self.cosd_decided: dict[str, tuple[int, Any]] = {}
        self.drafter.__class__ = CoSDProposer
        self.drafter.begin_cosd(self, self.cosd_batch)

    def _input_fits_in_drafter(self, common_attn_metadata: Any) -> bool:
        """Draft up to the end of the context: vLLM would leave the last tokens to the assistant alone.

        Proposals beyond the end are padding in the drafter, and vLLM does not schedule them.
        """
        return common_attn_metadata is not None

    def _sample(self, logits: torch.Tensor, spec_decode_metadata: Any) -> SamplerOutput:
        """Decide about the proposed tokens; a row without proposals gets no token, and is drafted for."""
        rows = self.input_batch.num_reqs
        row_ids = self.input_batch.req_ids[:rows]
        is_due = [not discarded for discarded in self.discard_request_mask.np[:rows].tolist()]
        self.cosd_batch.begin_step(self.requests, row_ids, is_due)
        # Our random numbers are the request's own. vLLM takes a number back from the generator of a seeded
        # request whose prompt is not read to its end, which generators of the processor cannot.
        self.input_batch.generators.clear()
        counts = spec_decode_metadata.num_draft_tokens
        scheduled = spec_decode_metadata.draft_token_ids.tolist()
        starts, blocks, at = [], [], 0
        for row, count in enumerate(counts):
            starts.append(at + row)  # each row has a line more than it has scheduled tokens
            blocks.append(scheduled[at : at + count])
            at += count
        decided = self.cosd_batch.decide(logits, starts, blocks)
        self._record(row_ids, decided)
        ids = torch.full((rows, self.num_spec_tokens + 1), _NONE, dtype=torch.int32)
        for row, tokens in enumerate(decided):
            ids[row, : len(tokens)] = torch.tensor([token.id for token in tokens], dtype=torch.int32)
        ids = ids.to(logits.device)
        most = self.input_batch.sampling_metadata.max_num_logprobs
        return SamplerOutput(
            sampled_token_ids=ids,
            logprobs_tensors=None if most is None else self._logprobs(logits, starts, ids, most),
        )

    def _logprobs(
        self, logits: torch.Tensor, starts: list[int], ids: torch.Tensor, most: int
    ) -> LogprobsTensors:
        """The assistant's log probabilities, as vLLM gives the target's; a line per place of the output."""
        offsets = torch.arange(ids.shape[1], device=logits.device)
        lines = torch.tensor(starts, device=logits.device)[:, None] + offsets
        logprobs = self.sampler.compute_logprobs(logits[lines.flatten().clamp(max=len(logits) - 1)])
        return self.sampler.gather_logprobs(logprobs, most, ids.flatten().clamp(min=0).long())

    def _record(self, row_ids: list[str], decided: list[list[DecidedToken]]) -> None:
        """Keep what was decided for the output of this step, with the number of tokens before it."""
        self.cosd_decided = {
            request_id: (len(self.requests[request_id].output_token_ids), to_array(tokens))
            for request_id, tokens in zip(row_ids, decided, strict=True)
            if tokens
        }

    @torch.inference_mode()
    def sample_tokens(self, grammar_output: Any) -> Any:
        """Add who wrote the tokens to the output, where vLLM has a place for what a step yields besides."""
        output = super().sample_tokens(grammar_output)
        if self.cosd_decided:
            assert isinstance(output, ModelRunnerOutput)
            output.aux_output_connector_output, self.cosd_decided = self.cosd_decided, {}
        return output


class CoSDProposer(DraftModelProposer):  # type: ignore[misc]
    """Picks the draft's tokens as CoSD does, with their confidences."""

    def begin_cosd(self, runner: CoSDModelRunner, batch: Batch) -> None:
        """Share the rows with the model runner."""
        self.cosd_runner = runner
        self.cosd_batch = batch

    def _sample_draft_tokens(
        self,
        hidden_states: torch.Tensor,
        sampling_metadata: Any,  # noqa: ARG002
    ) -> tuple[torch.Tensor, None]:
        """The next token of every row; vLLM needs no distributions, for its rejection sampler is not used."""
        return self.cosd_batch.draft(self.model.compute_logits(hidden_states)), None

    def prepare_inputs_padded(
        self, common_attn_metadata: Any, spec_decode_metadata: Any, valid_sampled_tokens_count: torch.Tensor
    ) -> Any:
        """Let the draft read a row's last token again where no token was decided.

        vLLM expects a new token behind every row that is read to its end. Where there is none, it puts the
        last known token there; counting that token as rejected once leaves it at its own place.
        """
        metadata, indices, rejected = super().prepare_inputs_padded(
            common_attn_metadata, spec_decode_metadata, valid_sampled_tokens_count
        )
        counts = torch.tensor(spec_decode_metadata.num_draft_tokens, device=rejected.device)
        is_due = torch.tensor([text is not None for text in self.cosd_batch.rows], device=rejected.device)
        undecided = (is_due & (counts == 0) & (valid_sampled_tokens_count == 0)).to(rejected.dtype)
        return metadata, indices - undecided, rejected + undecided
