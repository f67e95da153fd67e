"""X-Dyna: animate a picture of a person with a driving video, in a living scene."""
