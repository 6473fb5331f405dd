"""What a run, an evaluation and a data audit leave behind for people and programs."""
