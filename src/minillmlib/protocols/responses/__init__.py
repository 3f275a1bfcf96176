"""OpenAI's Responses wire, spoken without state at the server."""
