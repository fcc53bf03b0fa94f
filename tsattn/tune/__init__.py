"""Studies: which settings, above all which value activation, suit a person's data."""
