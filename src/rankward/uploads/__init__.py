"""Batches of decisions and rewards that were made elsewhere, in the binary format of Personalizer's local inference."""
