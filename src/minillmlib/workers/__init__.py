"""One run in many processes, as data engines start them: its job, its journal and its shares."""
