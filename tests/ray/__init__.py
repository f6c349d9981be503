"""Tests that start Ray; ``make test-ray`` runs them."""
