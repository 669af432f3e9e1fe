"""Bundles in other projects' formats, one format a file; docs/interop.md says what is lost."""
