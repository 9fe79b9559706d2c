"""What everything that moves atoms shares: systems, surfaces, neighbour lists, the guard."""
