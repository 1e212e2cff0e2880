"""Tables and figures of a trained model on a data set."""
