"""What people query: the REST interface and the pages."""
