"""Accuracy of trees by the questions that they are learned from: `python -m benchmarks.trees`.

The bundled pair answers 300 held-out questions of each kind greedily. Trees are learned from other questions:
of the models' training side ("seen") or held out ("unseen"), of all kinds or, as in the paper's Table 5, of
one kind; from all positions, or from those where the models differ ("mismatches").
"""

from collections.abc import Iterable
from statistics import mean
from typing import Any

import torch

from cosd_core import CoSDDecoder, TreeVerifier, observe
from cosd_core.demo import KINDS, Question, held_out, is_correct, load_pair
from examples.bundled_pairs.questions import practice

TESTED = {kind: held_out(kind, 300) for kind in KINDS}
UNSEEN = {kind: [each for each in held_out(kind, 669) if each not in set(TESTED[kind])] for kind in KINDS}


def sources() -> dict[str, list[Question]]:
    """Questions to learn from, by name."""

    def all_kinds(parts: Iterable[list[Question]]) -> list[Question]:
        return [question for part in parts for question in part]

    return {
        "seen, 100 a kind": all_kinds(practice(kind, 100) for kind in KINDS),
        "seen, 1,000 a kind": all_kinds(practice(kind, 1000) for kind in KINDS),
        "unseen, 100 a kind": all_kinds(UNSEEN[kind][:100] for kind in KINDS),
        "unseen, 350 a kind": all_kinds(UNSEEN[kind][:350] for kind in KINDS),
        "unseen, 116 a kind": all_kinds(UNSEEN[kind][:116] for kind in KINDS),
        **{f"unseen, 350 of {kind}": UNSEEN[kind][:350] for kind in KINDS},
    }


def show(drafts: str, method: str, decoder: CoSDDecoder) -> None:
    """Answer all tested questions and print a row of percentages."""
    shares = []
    for questions in TESTED.values():
        answers = decoder.generate([each.prompt for each in questions], max_new_tokens=48)
        right = [is_correct(each, answer.text) for each, answer in zip(questions, answers, strict=True)]
        shares.append(100 * mean(right))
    cells = [f"{share:.1f}" for share in (*shares, mean(shares))]
    print(f"| {' | '.join([drafts, method, *cells])} |", flush=True)


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    facts, arithmetic = load_pair()
    print(f"| drafts | method | {' | '.join(KINDS)} | mean |\n{'|---' * (len(KINDS) + 3)}|")
    for drafts, pair in (("facts", (facts, arithmetic)), ("arithmetic", (arithmetic, facts))):
        methods: dict[str, Any] = {"rule": "rule", "average": "average"}
        for source, questions in sources().items():
            observations = observe(pair, [(each.prompt, each.answer) for each in questions])
            for name, agreeing in (("tree", True), ("tree of mismatches", False)):
                methods[f"{name}, {source}"] = TreeVerifier.fit(observations, agreeing=agreeing)
        for name, verifier in methods.items():
            show(drafts, name, CoSDDecoder(*pair, verifier=verifier))


if __name__ == "__main__":
    main()
