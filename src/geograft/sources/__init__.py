"""Tables and folders in: photos with their positions, scenes with their footprints."""
