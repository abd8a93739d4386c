"""Scenes of folders, STAC and tile services, a row each."""
