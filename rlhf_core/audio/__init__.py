"""Reading, analysing and rendering audio. NumPy and SciPy only; no torch."""
