"""What lets channels work on leaves that are split over the devices of a worker."""
