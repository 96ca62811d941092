"""Learning an editing policy from a reward."""
