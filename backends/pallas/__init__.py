"""What the Pallas backends share: a part's tables in a kernel's own tiles, and predicates inside a kernel."""
