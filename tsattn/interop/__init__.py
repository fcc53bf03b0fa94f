"""Exchange with other people's software."""
