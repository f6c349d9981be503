"""Answers to a file of prompts, on one machine or many, by Ray Data."""
