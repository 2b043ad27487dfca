"""Replays of active learning on labelled data, as ``doubtless simulate`` runs them."""
