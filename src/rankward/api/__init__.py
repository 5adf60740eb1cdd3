"""The HTTP doors: the contract of Personalizer, and health, metrics and documentation."""
