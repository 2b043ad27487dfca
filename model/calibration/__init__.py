"""Probabilities that match frequencies, and the numbers that say how well they do."""
