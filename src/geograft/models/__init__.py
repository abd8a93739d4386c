"""Frozen teachers, satellite encoders, and the model folders that hold them."""
