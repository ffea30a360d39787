"""From a job's code to an image: what is built, whether it must be, and once for all who wait."""
