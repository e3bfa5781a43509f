"""The stages of a night, each around a job; the service that takes the champion."""
