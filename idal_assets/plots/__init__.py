"""Every figure of the platform, as matplotlib figures made from arrays and tables; no files, no global state."""
