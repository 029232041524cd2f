"""One study: network, data, memory and trials; how it runs and what it leaves."""
