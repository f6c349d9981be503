"""The two models alone: what vLLM writes with one of them and no speculation."""

from typing import Any

from tests.vllm.conftest import engine
from tests.vllm.test_texts import prompts


def test_no_replacement_is_the_draft_and_every_replacement_the_assistant(folders: dict[str, str]) -> None:
    from vllm import SamplingParams

    texts = prompts(16, seed=5)

    def written(llm: Any, extra_args: dict[str, Any] | None) -> list[list[int]]:
        params = SamplingParams(temperature=0, max_tokens=20, extra_args=extra_args)
        outputs = llm.generate([{"prompt_token_ids": each} for each in texts], params, use_tqdm=False)
        return [list(output.outputs[0].token_ids) for output in outputs]

    with engine(folders, draft_length=3, cosd={}) as llm:
        fused = {
            "draft": [written(llm, {"alpha": 0}), written(llm, {"verifier": "draft"})],
            "assistant": [written(llm, {"verifier": "assistant"}), written(llm, {"alpha": 2, "beta": 0})],
        }
    for name, found in fused.items():
        with engine(folders, draft_length=3, model=folders[name], speculative_config=None) as llm:
            alone = written(llm, None)
        assert found == [alone, alone]
    assert fused["draft"] != fused["assistant"]
