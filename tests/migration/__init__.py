"""Moving over."""
