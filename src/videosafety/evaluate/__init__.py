"""Chapter: the evaluation. Inspect tasks, arms, the local provider, resumable runs and the evaluation folder."""
