"""The vocabulary: labels, records, grammar, taxonomy, prompts, recipe types, metrics, statistics, store. No torch."""
