"""Networks, losses and data of this project; the files in conf/ name them."""
