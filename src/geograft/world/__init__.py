"""The simulated region: its land, the view from above, the view from the ground, and its files."""
