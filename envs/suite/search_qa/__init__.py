"""SearchQA: multi-hop questions answered by searching documents."""
