"""The accuracy table of the bundled pair: ``python -m examples.bundled_pairs.score``.

Every method answers the same held-out questions greedily; the whole answer must match. ``--pair`` scores
pairs that ``python -m examples.bundled_pairs.train --seed N --out DIR`` wrote, and shows each pair's mean.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean

import torch
from transformers.utils import logging

from cosd_core import CoSDDecoder, LanguageModel, RuleVerifier
from cosd_core.demo import KINDS, Question, held_out, is_correct, load_pair

from . import load_words_pair

Scores = dict[str, list[float]]
"""Per method the accuracy of each kind, in percent."""


def methods(facts: LanguageModel, arithmetic: LanguageModel) -> Iterator[tuple[str, CoSDDecoder]]:
    """The rows of the table."""
    yield "facts model alone", CoSDDecoder(facts, arithmetic, verifier="draft")
    yield "arithmetic model alone", CoSDDecoder(facts, arithmetic, verifier="assistant")
    if CoSDDecoder(facts, arithmetic).shares_vocabulary:
        yield "average of both distributions", CoSDDecoder(facts, arithmetic, verifier="average")
    for name, pair in (("facts", (facts, arithmetic)), ("arithmetic", (arithmetic, facts))):
        for alpha in (0.5, 0.9):
            yield (
                f"rule ({alpha}, 0.5), {name} model drafts",
                CoSDDecoder(*pair, verifier=RuleVerifier(alpha)),
            )


def score(facts: LanguageModel, arithmetic: LanguageModel, questions: Sequence[Question]) -> Scores:
    """Let every method answer."""
    return {name: _accuracies(decoder, questions) for name, decoder in methods(facts, arithmetic)}


def _accuracies(decoder: CoSDDecoder, questions: Sequence[Question]) -> list[float]:
    answers = decoder.generate([each.prompt for each in questions], max_new_tokens=48)
    right = [(q.kind, is_correct(q, a.text)) for q, a in zip(questions, answers, strict=True)]
    return [100 * mean(correct for kind, correct in right if kind == wanted) for wanted in KINDS]


def table(scores: Sequence[Scores]) -> str:
    """Markdown: the mean over pairs, and every pair's mean."""
    lines = [
        "| method | " + " | ".join(KINDS) + " | mean | mean of each seed |",
        "|---" * (len(KINDS) + 3) + "|",
    ]
    for method in scores[0]:
        kinds = [mean(each) for each in zip(*(pair[method] for pair in scores), strict=True)]
        seeds = ", ".join(f"{mean(pair[method]):.1f}" for pair in scores)
        cells = [f"{value:.1f}" for value in (*kinds, mean(kinds))]
        lines.append(f"| {method} | {' | '.join(cells)} | {seeds} |")
    return "\n".join(lines)


def load_folder(folder: Path) -> tuple[LanguageModel, LanguageModel]:
    facts, arithmetic = (
        LanguageModel.from_pretrained(str(folder / name), dtype="float32", device="cpu")
        for name in ("facts", "arithmetic")
    )
    return facts, arithmetic


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument(
        "--pair", type=Path, nargs="+", help="folders with a trained pair; default: the bundled"
    )
    arguments.add_argument("--words", action="store_true", help="the bundled pair with two tokenizers")
    arguments.add_argument("--questions", type=int, default=300, help="held-out questions of each kind")
    arguments.add_argument("--seed", type=int, default=0, help="which held-out questions")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    questions = [each for kind in KINDS for each in held_out(kind, given.questions, given.seed)]
    if given.pair:
        pairs = [load_folder(folder) for folder in given.pair]
    else:
        pairs = [load_words_pair() if given.words else load_pair()]
    print(f"{given.questions} held-out questions of each kind, question seed {given.seed}\n")
    print(table([score(*pair, questions) for pair in pairs]))


if __name__ == "__main__":
    main()
