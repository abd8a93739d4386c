"""Fast inference: who computes a model's vectors, exported graphs, and int8."""
