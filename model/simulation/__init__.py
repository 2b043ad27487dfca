"""Replaying active learning on labelled data: what choosing would have saved."""
