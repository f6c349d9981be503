"""What a tree may see where two models differ: their confidences, and more of their distributions."""

from typing import NamedTuple, Self

import torch

from cosd_core.prediction import Prediction

CONFIDENCES = ("p", "q")
"""What the paper's tree sees."""


class Further(NamedTuple):
    """What else the two distributions tell, P the draft's and Q an assistant's.

    Both are the softmax of what the logits processors left, at temperature 1 whatever the calibration is.
    Entropies are in nats; a margin is what the most probable token has more than the second.
    """

    p_of_y: float
    q_of_x: float
    lead: float
    p_margin: float
    q_margin: float
    p_entropy: float
    q_entropy: float

    @classmethod
    def of(cls, draft: Prediction, opinion: Prediction) -> Self:
        """Of predictions that carry their logits."""
        (p_of_x, p_of_y), (p_margin, p_entropy) = _read(draft, draft.id, opinion.id)
        (q_of_x, q_of_y), (q_margin, q_entropy) = _read(opinion, draft.id, opinion.id)
        lead = (q_of_y - q_of_x) - (p_of_x - p_of_y)  # in this order, so that swapping only turns the sign
        return cls(p_of_y, q_of_x, lead, p_margin, q_margin, p_entropy, q_entropy)

    def swapped(self) -> Self:
        """The same with the roles exchanged."""
        return type(self)(
            p_of_y=self.q_of_x,
            q_of_x=self.p_of_y,
            lead=-self.lead,
            p_margin=self.q_margin,
            q_margin=self.p_margin,
            p_entropy=self.q_entropy,
            q_entropy=self.p_entropy,
        )


MEANINGS = {
    "p": "the draft's confidence in x",
    "q": "the assistant's confidence in y",
    "p_of_y": "P(y), the draft's probability of y",
    "q_of_x": "Q(x), the assistant's probability of x",
    "lead": "P(y) + Q(y) - P(x) - Q(x): above 0 averaging would prefer y",
    "p_margin": "how much more probable the draft's first choice is than its second",
    "q_margin": "the same of the assistant",
    "p_entropy": "the entropy of the draft's distribution in nats",
    "q_entropy": "the same of the assistant's",
}
"""Every feature in words."""

FEATURES = (*CONFIDENCES, *Further._fields)
"""All that a wide tree may see."""


def _read(prediction: Prediction, *tokens: int) -> tuple[list[float], list[float]]:
    """The probabilities of these tokens, and margin and entropy."""
    logits = prediction.logits
    assert logits is not None, "a verifier with needs_logits gets them"
    shares = torch.softmax(logits, -1)
    first, second = shares.topk(2).values
    entropy = torch.special.entr(shares).sum()
    numbers: list[float] = torch.stack([*shares[list(tokens)], first - second, entropy]).tolist()
    return numbers[: len(tokens)], numbers[len(tokens) :]
