"""Which labels the model, not fitted on them, calmly contradicts: what to look at again."""
