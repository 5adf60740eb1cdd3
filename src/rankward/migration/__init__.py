"""Moving over from Azure AI Personalizer: what is recognised, taken over, and found to be the same."""
