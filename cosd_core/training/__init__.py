"""Data for verifiers: teacher forcing over texts, and calibration."""
