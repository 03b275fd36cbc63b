"""Invertible networks: coupling blocks, their likelihood, start and scores."""
