"""Learning a reward from votes."""
