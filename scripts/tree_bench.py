"""Learned trees on the bundled questions beside rules, averaging and single models.

`python scripts/tree_bench.py`. Trees are learned from questions that are not among the tested ones: from the
training side, which the models have seen, or from held-out questions, which they have not. "Against average"
counts the tested questions that a method got right and averaging wrong, and the other way round.
"""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from statistics import mean

import numpy as np
import torch

from cosd_core import (
    Calibration,
    CoSDDecoder,
    LanguageModel,
    Observations,
    RuleVerifier,
    TreeVerifier,
    observe,
)
from cosd_core.demo import KINDS, Kind, Question, held_out, is_correct, load_pair, practice

TESTED = 300
"""Held-out questions of each kind."""

Answers = Mapping[Kind, Sequence[bool]]
"""Per kind which of the tested questions were answered right."""


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    torch.set_num_threads(1)
    facts, arithmetic = load_pair()
    tested = {kind: tested_questions(kind) for kind in KINDS}
    sources = {
        "seen, 100 a kind": {kind: practice(kind, 100) for kind in KINDS},
        "seen, 1,000 a kind": {kind: practice(kind, 1000) for kind in KINDS},
        "unseen, 100 a kind": {kind: unseen_questions(kind, 100) for kind in KINDS},
        "unseen, 350 a kind": {kind: unseen_questions(kind, 350) for kind in KINDS},
    }
    print("| drafts | method | learned from | " + " | ".join(KINDS) + " | mean | against average |")
    print("|---" * (len(KINDS) + 5) + "|")
    for name, pair in (("facts", (facts, arithmetic)), ("arithmetic", (arithmetic, facts))):
        average = answer(CoSDDecoder(*pair, verifier="average"), tested)
        methods: dict[str, str | RuleVerifier] = {"draft alone": "draft", "assistant alone": "assistant"}
        methods |= {f"rule ({alpha}, 0.5)": RuleVerifier(alpha) for alpha in (0.5, 0.9)}
        for said, verifier in methods.items():
            show(name, said, "", answer(CoSDDecoder(*pair, verifier=verifier), tested), average)
        show(name, "average", "", average, average)
        for said, questions in sources.items():
            seen = observe(pair, lessons(each for kind in KINDS for each in questions[kind]))
            for calibrated in (False, True):
                for agreeing in (True, False):
                    decoder = learned(pair, seen, calibrated=calibrated, agreeing=agreeing)
                    method = (
                        f"tree{'' if agreeing else ' of mismatches'}{', calibrated' if calibrated else ''}"
                    )
                    show(name, method, said, answer(decoder, tested), average)


def tested_questions(kind: Kind) -> list[Question]:
    """The questions that methods are compared on."""
    return held_out(kind, TESTED)


def unseen_questions(kind: Kind, count: int) -> list[Question]:
    """Other held-out questions, to learn from."""
    tested = set(tested_questions(kind))
    return [each for each in held_out(kind, 669) if each not in tested][:count]


def lessons(questions: Iterable[Question]) -> list[tuple[str, str]]:
    """Questions with their true answers, to be read."""
    return [(each.prompt, each.answer) for each in questions]


def learned(
    pair: Sequence[LanguageModel],
    seen: Observations,
    *,
    calibrated: bool,
    agreeing: bool,
) -> CoSDDecoder:
    """The pair with a tree that was learned from what it has seen."""
    calibration = Calibration.fit(seen).temperatures if calibrated else None
    tree = TreeVerifier.fit(seen, calibration=calibration, agreeing=agreeing)
    return CoSDDecoder(pair[0], pair[1:], verifier=tree, calibration=calibration)


def answer(decoder: CoSDDecoder, tested: Mapping[Kind, Sequence[Question]]) -> Answers:
    """Let a method answer all tested questions greedily; the whole answer must match."""
    return {
        kind: [
            is_correct(question, each.text)
            for question, each in zip(
                questions,
                decoder.generate([each.prompt for each in questions], max_new_tokens=48),
                strict=True,
            )
        ]
        for kind, questions in tested.items()
    }


def show(drafts: str, method: str, source: str, answers: Answers, average: Answers) -> None:
    """Print a row."""
    shares = [100 * mean(answers[kind]) for kind in KINDS]
    ours, theirs = (np.concatenate([each[kind] for kind in KINDS]) for each in (answers, average))
    against = f"+{(ours & ~theirs).sum()} -{(theirs & ~ours).sum()}"
    cells = [f"{share:.1f}" for share in (*shares, mean(shares))]
    print(f"| {' | '.join([drafts, method, source, *cells, against])} |", flush=True)


if __name__ == "__main__":
    main()
