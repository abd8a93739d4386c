"""What a model is for: classify, search, segment; scenes in, tables and maps out."""
