"""Table 2 with our own figures, rendered from `results/` alone: `tsattn leaderboard`."""
