"""What people see and publish of pairs: the parts of page, card, collection, export and leakage report."""
