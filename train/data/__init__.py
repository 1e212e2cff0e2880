"""Images to train and validate on: which there are, how they are read, and how blur is synthesised."""
