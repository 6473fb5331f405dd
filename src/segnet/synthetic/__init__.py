"""The embedded data: rendered cables with defects."""
