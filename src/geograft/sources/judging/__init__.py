"""What filters need to know: doubles, caps, places, daylight, looks."""
