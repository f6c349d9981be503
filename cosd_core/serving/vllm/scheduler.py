"""vLLM's scheduler for CoSD: no token is accepted without a decision, and answers say who wrote them."""

from typing import Any

from vllm.v1.core.sched.scheduler import Scheduler


class CoSDScheduler(Scheduler):  # type: ignore[misc]
    """Goes back by one token where a step has decided nothing, so that the next step has proposals."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.aux_output_connector = ProvenanceConnector()

    def update_from_output(self, scheduler_output: Any, model_runner_output: Any) -> Any:
        """Take back the last known token of requests that are read to their end and got no token.

        The assistant's prediction behind it is not used: no draft token stood there. The next step runs it
        again, with the draft's proposals behind it.
        """
        tokens = model_runner_output.sampled_token_ids
        for request_id in scheduler_output.num_scheduled_tokens:
            request = self.requests.get(request_id)
            if request is None or request.is_finished() or request.is_prefill_chunk:
                continue
            row = model_runner_output.req_id_to_index.get(request_id)
            if row is not None and not tokens[row]:
                request.num_computed_tokens = request.num_tokens - 1
        return super().update_from_output(scheduler_output, model_runner_output)


class ProvenanceConnector:
    """Hands who wrote the tokens from the worker's output to the answer.

    It has the methods of vLLM's ``AuxOutputSchedulerConnector`` that a scheduler calls.
    """

    def take_output(self, request: Any, output: dict[str, tuple[int, Any]] | None) -> Any:
        """The rows of the tokens of this step that became part of the text; None if there are none."""
        if output is None or request.request_id not in output:
            return None
        written, rows = output[request.request_id]
        return rows[: request.num_output_tokens - written]

    def build_connector_meta(self, scheduler_output: Any, requests: Any) -> None:
        """The worker needs no word of the scheduler."""

    def request_finished(self, request: Any) -> None:
        """Nothing is kept between steps."""

    def reset(self) -> None:
        """Nothing is kept between steps."""
