"""Speed and memory, beside the original's."""
