"""What this process needs of its operating system: files, sockets, memory, descriptors, background work."""
