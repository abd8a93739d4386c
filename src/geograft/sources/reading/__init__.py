"""Tables and folders of any site read as batches of photos."""
