"""Video: clips in and out, flow between frames, and the job that stylizes a clip without flicker."""
