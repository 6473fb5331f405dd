"""One module a command; importing one does not import torch, so that ``--help`` answers at once."""
