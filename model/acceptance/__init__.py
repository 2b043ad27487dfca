"""Which predictions may be accepted unseen: what to audit, what that proves, when it ends."""
