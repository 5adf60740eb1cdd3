"""Clients of a service: decisions within a deadline, reports that are sent behind the page's back."""
