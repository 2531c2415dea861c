"""The checks, one file per family. Importing `families` fills the registry."""
