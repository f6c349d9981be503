"""Claim: models behind real servers of vLLM write what they write on this machine."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from cosd_core import CoSDDecoder, LanguageModel, RuleVerifier
from cosd_core.models.server.model import ServerModel
from tests.vllm.servers import served

RULE = RuleVerifier(alpha=0.8, beta=0.3)
PROMPTS = [f"{'The number ' * (at % 5)}{at * 37}" for at in range(25)]


@pytest.fixture(scope="module")
def remote(
    folders: dict[str, str],
    draft: LanguageModel,
    assistant: LanguageModel,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, ServerModel]]:
    """Both models behind servers, by their roles."""
    logs = tmp_path_factory.mktemp("servers")
    with ExitStack() as stack:
        urls = {
            name: stack.enter_context(served(folder, log=logs / f"{name}.txt"))
            for name, folder in folders.items()
        }
        yield {name: LanguageModel.from_server(url) for name, url in urls.items()}
    assert {draft.vocabulary_size, assistant.vocabulary_size} == {257}


@pytest.mark.parametrize("role", ["assistant", "both"])
def test_texts_are_those_of_local_models(
    role: str, remote: dict[str, ServerModel], draft: LanguageModel, assistant: LanguageModel
) -> None:
    first = draft if role == "assistant" else remote["draft"]
    before = {name: model.client.num_requests for name, model in remote.items()}
    decoder = CoSDDecoder(first, remote["assistant"], verifier=RULE, schedule="fixed", draft_length=4)
    found = decoder.generate(PROMPTS, max_new_tokens=12)
    local = CoSDDecoder(draft, assistant, verifier=RULE).generate(PROMPTS, max_new_tokens=12)
    assert [each.token_ids for each in found] == [each.token_ids for each in local]
    assert {token.source for each in found for token in each.tokens} == {"draft", "assistant"}
    for one, other in zip(found, local, strict=True):
        assert [token.p for token in one.tokens] == pytest.approx(
            [token.p for token in other.tokens], rel=1e-3
        )
    rounds = max(each.stats.rounds for each in found)
    sent = {name: model.client.num_requests - before[name] for name, model in remote.items()}
    assert sent["assistant"] == rounds, "a request per round, for all prompts"
    assert sent["draft"] <= (2 * rounds if role == "both" else 0)
