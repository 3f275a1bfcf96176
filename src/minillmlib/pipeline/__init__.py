"""From a thread to an answer: plan, encode, exchange, parse, settle."""
