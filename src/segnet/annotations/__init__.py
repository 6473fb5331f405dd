"""Labels of other programs as an ordinary folder of images and masks: formats, their pixels, and what is written."""
