"""Where jobs and their code come from."""
