"""Trees learned on one kind of question and tested on every kind, as in the paper's Table 5.

`python scripts/tree_transfer.py`: the bundled pair, 350 unseen questions to learn from, 300 others of each
kind to be tested on. Rows are what a tree is tested on, columns what it was learned from.
"""

import argparse
from statistics import mean

import torch
from tree_bench import answer, learned, lessons, tested_questions, unseen_questions

from cosd_core import observe
from cosd_core.demo import KINDS, load_pair

LEARNED = 350
"""Questions of one kind."""


def main() -> None:
    """Print a table for each assignment of roles, with agreeing positions and without."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    torch.set_num_threads(1)
    facts, arithmetic = load_pair()
    tested = {kind: tested_questions(kind) for kind in KINDS}
    questions = {kind: unseen_questions(kind, LEARNED) for kind in KINDS}
    sources = {kind: questions[kind] for kind in KINDS}
    sources["all kinds"] = [each for kind in KINDS for each in questions[kind][: LEARNED // len(KINDS)]]
    for name, pair in (("facts", (facts, arithmetic)), ("arithmetic", (arithmetic, facts))):
        seen = {source: observe(pair, lessons(each)) for source, each in sources.items()}
        for agreeing in (True, False):
            print(f"\n{name} model drafts{'' if agreeing else ', learned from mismatches'}\n")
            columns = [
                answer(learned(pair, each, calibrated=False, agreeing=agreeing), tested)
                for each in seen.values()
            ]
            print(f"| tested on | {' | '.join(sources)} |")
            print("|---" * (len(sources) + 1) + "|")
            for kind in KINDS:
                print(f"| {kind} | {' | '.join(f'{100 * mean(each[kind]):.1f}' for each in columns)} |")
            means = [mean(100 * mean(each[kind]) for kind in KINDS) for each in columns]
            print(f"| mean | {' | '.join(f'{each:.1f}' for each in means)} |", flush=True)


if __name__ == "__main__":
    main()
