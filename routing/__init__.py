"""From a type to its destinations: config, stacks, rules (pure), and the router that performs what they decide."""
