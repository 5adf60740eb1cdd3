"""What is a loop waiting for, and why is it not learning: facts in, findings out, one screen."""
