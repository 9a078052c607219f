"""Theory: closed forms of queueing theory, and the systems whose answers they give exactly."""
