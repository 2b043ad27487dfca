"""Small models on cached features, one file a task type."""
