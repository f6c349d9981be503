"""Training data of verifiers by teacher forcing, and calibration."""
