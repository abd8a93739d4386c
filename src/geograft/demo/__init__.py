"""The whole loop on a small simulated region, and a report of what came of it."""
