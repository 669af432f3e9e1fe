"""The server of a leaderboard: reading, submissions with tokens, a queue of verifications."""
