"""Photos downloaded politely: hosts, workers, journal, files."""
