"""Training: the schema of a run, its state, its step, where each array lies, and what is kept and shown of it."""
