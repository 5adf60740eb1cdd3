"""The embedded home: one folder of SQLite databases and compressed files."""
