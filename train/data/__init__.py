"""Images to train on and to validate with: how they are found, read, and blurred synthetically."""
