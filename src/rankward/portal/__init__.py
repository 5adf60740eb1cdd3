"""Web pages: the portal, the documentation of the API, and what they load."""
