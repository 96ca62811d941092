"""A small stand-in for the package demucs: same names and calls, stems by fixed filters."""
