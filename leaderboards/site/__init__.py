"""The pages of a leaderboard: static HTML that needs no network, the same for files and server."""
