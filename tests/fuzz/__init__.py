"""Arbitrary input of every kind: cosd returns, or raises one of its own errors, and does so soon.

``make fuzz`` tries many examples, other ones each time; the suite tries a few, the same each time.
"""
