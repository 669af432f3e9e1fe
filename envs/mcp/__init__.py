"""MCP: an environment whose tools are a server's, and a server that plays one episode."""
