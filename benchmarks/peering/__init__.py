"""The other libraries, in an environment of their own, behind a pipe."""
