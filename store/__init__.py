"""The tables that everything shares: SQL (SQLite or PostgreSQL) and Delta Lake."""
