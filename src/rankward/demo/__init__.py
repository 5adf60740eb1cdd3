"""The demo: a news site whose readers' tastes are known, arranged by a loop of this very service."""
