"""The REST interface and the web pages."""
