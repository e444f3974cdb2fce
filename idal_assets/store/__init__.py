"""What lies on disk: where each file is, how an artifact is written, and the database."""
