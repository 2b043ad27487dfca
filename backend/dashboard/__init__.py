"""The dashboard: pages without a build step, and the JSON that every number on them comes from."""
