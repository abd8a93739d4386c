"""Chips with the photos taken inside them: planned, divided by place, cut, and read back as batches."""
