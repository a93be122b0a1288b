"""Models that say what clips show and write words: what is asked, what it may cost, and how votes are settled."""
