"""Hostile input and bad luck: mutated pictures, kills, flipped bits, bombs, archives, clients."""
