"""From logits to predictions: masks, penalties, temperature, random numbers and confidences."""
