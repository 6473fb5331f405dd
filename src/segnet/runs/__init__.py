"""What reads and continues run folders. Importing it does not import torch."""
