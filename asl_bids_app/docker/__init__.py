"""`asl-docker`: runs `asl-app` in its Docker image as if it were installed here."""
