"""Compares texts of models whose sums are rounded: llama.cpp's depend on the size of a pass."""

from cosd_core import Generation
from tests.reference import Written

NEAR = 0.1
"""Where two texts part, the confidences there lie within this distance of where the decision changes."""


def assert_equal_texts(generation: Generation, written: Written) -> None:
    """The ids are the reference's, up to a place where rounding decides between nearly equal tokens."""
    found = generation.token_ids
    parted = next(
        (at for at, (a, b) in enumerate(zip(found, written.ids, strict=False)) if a != b), len(written.ids)
    )
    if parted == len(written.ids):
        assert generation.text == written.text
        return
    token, place = generation.tokens[parted], written.places[parted]
    if token.draft_id != place.x:  # the draft's two best tokens
        assert token.p < 0.5 + NEAR
        assert abs(token.p - place.p) < NEAR
        return
    ((_, q),) = place.answers
    distances = [abs(place.p - 0.5), abs(q - 0.5 * place.p)]
    assert min(distances) < NEAR, f"the texts part at {parted}, where p={place.p} and q={q}"
