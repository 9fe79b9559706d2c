"""Active learning: train, explore, choose what the potential does not know, label, train again."""
