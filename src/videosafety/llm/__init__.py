"""Models behind a server. No torch."""
