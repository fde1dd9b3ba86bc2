"""File formats: what an input holds, and how its bytes become numbers."""
