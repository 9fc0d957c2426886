"""What several test files share: simulated systems, dense oracles, other programs' numbers, stores that count reads."""
