"""Results that others can verify: evaluate an agent, replay a bundle, rank (no torch here)."""
