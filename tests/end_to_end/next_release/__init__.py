"""What a next release could bring: an application whose migrations touch tables in use."""
